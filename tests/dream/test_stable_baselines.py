"""Dreams and the real world for Stable-Baselines3."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasiums_check
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env

from dream_agents import dreamer
from worldmodels.core.errors import UserError
from worldmodels.dream.env import DreamEnv, DreamVectorEnv
from worldmodels.dream.latent_world import LatentWorld
from worldmodels.dream.stable_baselines import DreamVecEnv

EXAMPLE = Path(__file__).parents[2] / "examples" / "ppo_in_a_dream.py"


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("observation", ["latent", "frame"])
def test_stable_baselines_checker_is_content(task: str, observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A car's gas and brake go from 0 to 1, and SB3 would rather see -1 to 1: the stock world's choice, not ours.
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        check_env(DreamEnv(agent=dreamer(task), observation=observation, max_steps=30))


def test_rows_that_ended_begin_anew_and_keep_what_they_ended_with() -> None:
    agent = dreamer(end_bias=-2.0)
    env, plain = DreamVecEnv(16, agent=agent, max_steps=12), DreamVectorEnv(16, agent, max_steps=12)
    env.seed(5)
    seeds = [5 + row for row in range(16)]
    wanted, _ = plain.reset(seed=seeds)
    found = env.reset()
    np.testing.assert_array_equal(found, wanted)
    ended = np.zeros(16, bool)
    kinds = set()
    actions = np.tile(np.array([0.1, 0.5, 0.0], np.float32), (16, 1))
    for _ in range(12):
        wanted, rewards, terminated, truncated, _ = plain.step(actions)
        found, got, done, infos = env.step(actions)
        fresh = ~ended
        np.testing.assert_allclose(got[fresh], rewards[fresh], rtol=1e-5)
        assert (done[fresh] == (terminated | truncated)[fresh]).all()
        for row in np.flatnonzero(fresh & done):
            np.testing.assert_array_equal(infos[row]["terminal_observation"], wanted[row])
            assert infos[row]["TimeLimit.truncated"] == truncated[row]
            assert (found[row] != wanted[row]).any(), "a new dream has begun"
            kinds.add(bool(truncated[row]))
        ended |= done
    assert ended.all() and kinds == {True, False}


def test_ppo_learns_in_dreams() -> None:
    model = PPO("MlpPolicy", DreamVecEnv(4, agent=dreamer(), max_steps=20), n_steps=16, batch_size=32, device="cpu")
    model.learn(128)
    assert model.num_timesteps == 128 and model.ep_info_buffer is not None


class Track(gymnasium.Env):
    """Random pictures of a road, the stock world's spaces."""

    observation_space = gymnasium.spaces.Box(0, 255, (96, 96, 3), np.uint8)
    action_space = dreamer().task.action_space

    def _picture(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (96, 96, 3), dtype=np.uint8)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        return self._picture(), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        return self._picture(), 1.0, False, False, {}


def test_the_real_world_shows_the_numbers_that_the_agents_own_controller_sees() -> None:
    agent = dreamer()
    world, plain, policy = LatentWorld(Track(), agent), Track(), agent.policy(1)
    inputs, _ = world.reset(seed=3)
    observation, _ = plain.reset(seed=3)
    for _ in range(6):
        assert inputs.shape == world.observation_space.shape == (22,)
        (before,) = policy.state[0].clone()
        action = policy.act(observation[None])[0]
        torch.testing.assert_close(torch.from_numpy(inputs[:6]), policy.latents[0])
        torch.testing.assert_close(torch.from_numpy(inputs[6:]), before)
        observation, *_ = plain.step(action)
        inputs, reward, *_ = world.step(action)
        assert reward == 1.0
    gymnasiums_check(TimeLimit(LatentWorld(Track(), agent), 10), skip_render_check=True)


def test_another_world_than_the_agents_is_refused() -> None:
    with pytest.raises(UserError, match="expected the stock environment of car-racing"):
        LatentWorld(gymnasium.make("CartPole-v1"), dreamer())


def test_without_stable_baselines_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "worldmodels.dream.stable_baselines")
    with pytest.raises(UserError, match=r'pip install "worldmodels\[rl\]"'):
        import worldmodels.dream.stable_baselines  # noqa: F401


def test_the_example_runs(tmp_path: Path) -> None:
    dreamer().save(tmp_path)
    size = ["--steps", "100", "--dream-length", "10", "--episodes", "1"]
    command = [sys.executable, str(EXAMPLE), "--agent", str(tmp_path), *size]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "real episode 1:" in done.stdout and "over 1 real episodes, no interval for one" in done.stdout
