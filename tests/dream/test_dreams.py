"""Dreams: the arithmetic of a step, random numbers that belong to seeds, and the environment that people use."""

import subprocess
import sys
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from dream_agents import CPU, dream_along, dreamer, take
from worldmodels.agent import load_agent
from worldmodels.core.errors import UserError
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.env import DreamEnv, DreamVectorEnv
from worldmodels.dream.fast.streams import NumpyStreams
from worldmodels.memory.mixture import mixture_from
from worldmodels.memory.packed import PackedMemory

NAME = "worldmodels.dream.env:worldmodels/Dream-v0"
"""What Gymnasium makes dreams by; the part before the colon is the module that says how."""


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("temperature", [0.8, 1.15])
def test_a_dream_is_m_stepped_by_hand(task: str, temperature: float) -> None:
    agent = dreamer(task, end_bias=-1.0)
    memory, seeds = agent.memory, [3, 8, 5, 8]
    agent.start_states = torch.randn(5, 2, 16).half()
    memory.end_weight.fill_(3.0)
    dreams = Dreams(agent, temperature, dtype=torch.float32, streams=NumpyStreams)
    dreams.reset(seeds)
    streams = NumpyStreams(seeds, 6, CPU)
    which, normal = streams.start(5)
    assert agent.starts is not None
    z = agent.starts[which, 0].float() + (agent.starts[which, 1].float() / 2).exp() * normal
    state = agent.start_states[which, 0].float(), agent.start_states[which, 1].float()
    ends = 0
    for step in range(40):
        torch.testing.assert_close(dreams.policy_inputs(), agent.inputs(z, *state), atol=1e-4, rtol=1e-4)
        actions = torch.rand(4, agent.task.action_size, generator=torch.Generator().manual_seed(step))
        reward, ended = dreams.step(actions)
        uniform, normal, chance = streams.next()
        with torch.no_grad():
            state = memory.step(z, actions, state)
            said = memory.heads(state[0])
        assert said.end_logit is not None
        chances = torch.softmax(said.mixture.log_weights / temperature, dim=-1)
        k = (chances.cumsum(-1) <= uniform[:, :, None]).sum(-1, keepdim=True).clamp(max=2)
        mean, log_scale = (one.gather(2, k)[:, :, 0] for one in said.mixture[1:])
        z = mean + log_scale.exp() * temperature**0.5 * normal
        paid = said.reward if task == "car-racing" else torch.ones(4)
        torch.testing.assert_close(reward, paid, atol=1e-4, rtol=1e-4)
        odds = said.end_logit.exp() / 3  # of an end, which counted three times in training
        assert torch.equal(ended, chance < odds / (1 + odds))
        ends += int(ended.sum())
    assert ends > 0


def numbers(count: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Uniform and normal numbers."""
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, size, generator=stream), torch.randn(count, size, generator=stream)


def test_the_packed_memory_steps_as_m_does() -> None:
    memory = dreamer().memory
    z, actions, state = torch.randn(7, 6), torch.rand(7, 3), (torch.randn(7, 16), torch.randn(7, 16))
    with torch.no_grad():
        wanted = memory.step(z, actions, state)
    found = PackedMemory(memory).step(z, actions, state)
    rough = PackedMemory(memory, torch.bfloat16).step(z, actions, state)
    for a, b, c in zip(wanted, found, rough, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert (a - c).abs().max() < 0.03


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_a_draw_is_the_component_under_the_uniform_number_plus_scaled_noise(temperature: float) -> None:
    memory = dreamer().memory
    hidden, (uniform, normal) = torch.randn(50, 16), numbers(50, 6)
    with torch.no_grad():
        mixture = mixture_from(memory.mixture_head(hidden), 6)
        prediction = memory.heads(hidden)
    chances = torch.softmax(mixture.log_weights.double() / temperature, -1).numpy()
    wanted = np.empty((50, 6))
    for row in range(50):
        for latent in range(6):
            k = int(np.searchsorted(np.cumsum(chances[row, latent]), float(uniform[row, latent]), side="right"))
            mean, scale = mixture.means[row, latent, k], mixture.log_scales[row, latent, k].exp()
            wanted[row, latent] = mean + scale * np.sqrt(temperature) * normal[row, latent]
    drawn = PackedMemory(memory).draw(hidden, uniform, normal, temperature)
    np.testing.assert_allclose(drawn.z.numpy(), wanted, atol=1e-4)
    assert prediction.reward is not None and prediction.end_logit is not None
    torch.testing.assert_close(drawn.reward, prediction.reward, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(drawn.end_logit, prediction.end_logit, atol=1e-5, rtol=1e-5)


def test_temperature_acts_on_the_choice_and_on_the_noise() -> None:
    memory = dreamer().memory
    with torch.no_grad():
        memory.mixture_head.weight.zero_()
        bias = memory.mixture_head.bias.view(6, 3, 3)
        bias[:, 0], bias[:, 1] = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([-100.0, 0.0, 100.0])
        bias[:, 2] = 0.5
    z = {}
    for temperature in (0.5, 2.0):
        uniform, normal = numbers(20_000, 6)
        z[temperature] = PackedMemory(memory).draw(torch.zeros(20_000, 16), uniform, normal, temperature).z
        wanted = torch.softmax(torch.tensor([0.0, 1.0, 2.0]) / temperature, 0)
        component = (z[temperature] / 100).round() + 1
        for k in range(3):
            assert (component == k).float().mean().item() == pytest.approx(wanted[k].item(), abs=0.01)
        noise = z[temperature] - 100 * (component - 1)
        assert noise.std().item() == pytest.approx(np.exp(0.5) * np.sqrt(temperature), rel=0.02)


def test_random_numbers_belong_to_the_seed_and_not_to_the_batch() -> None:
    together, alone = NumpyStreams([3, 8, 5], 4, CPU), NumpyStreams([8], 4, CPU)
    start, own = together.start(100), alone.start(100)
    assert start[0][1] == own[0][0] and torch.equal(start[1][1], own[1][0])
    np.testing.assert_array_equal(take(together, 70)[:, 1], take(alone, 70)[:, 0])


def test_rows_with_the_same_seed_share_their_numbers() -> None:
    shared, plain = NumpyStreams([3, 8, 3], 4, CPU, shared=True), NumpyStreams([3, 8], 4, CPU)
    assert torch.equal(shared.start(9)[1], plain.start(9)[1][[0, 1, 0]])
    np.testing.assert_array_equal(take(shared, 40), take(plain, 40)[:, [0, 1, 0]])


@pytest.mark.parametrize("shared", [False, True])
def test_dropping_rows_changes_nothing_for_the_others(shared: bool) -> None:
    kept, whole = (NumpyStreams([3, 8, 5, 8], 4, CPU, shared) for _ in range(2))
    wanted = take(whole, 45)
    np.testing.assert_array_equal(take(kept, 5), wanted[:5])
    kept.keep(torch.tensor([1, 3]))
    np.testing.assert_array_equal(take(kept, 40), wanted[5:, [1, 3]])


@pytest.mark.parametrize("after", [0, 5, 32, 40])
def test_a_restarted_row_sees_the_numbers_of_its_new_seed_from_their_beginning(after: int) -> None:
    streams, fresh, other = NumpyStreams([3, 8], 4, CPU), NumpyStreams([21], 4, CPU), NumpyStreams([3], 4, CPU)
    other.start(9), streams.start(9)
    wanted = fresh.start(9)
    if after:
        take(streams, after)
    which, normal = streams.replace([1], [21], 9)
    assert torch.equal(which, wanted[0]) and torch.equal(normal, wanted[1])
    found = take(streams, 50)
    np.testing.assert_array_equal(found[:, 1], take(fresh, 50)[:, 0])
    np.testing.assert_array_equal(found[:, 0], take(other, after + 50)[after:, 0])


def test_what_a_row_dreams_does_not_depend_on_the_rows_beside_it() -> None:
    agent = dreamer()
    many = DreamVectorEnv(5, agent, dtype=torch.float32)
    one = DreamVectorEnv(1, agent, dtype=torch.float32)
    for together, alone in zip(dream_along(many, [4, 9, 2, 7, 1], 40), dream_along(one, [7], 40), strict=True):
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[3].astype(float), b[0].astype(float), atol=1e-3)


def test_the_same_seed_dreams_the_same_dream_and_another_one_another() -> None:
    env = DreamVectorEnv(3, dreamer())
    first, again, other = (dream_along(env, seeds, 20) for seeds in ([1, 2, 3], [1, 2, 3], [4, 5, 6]))
    assert all((a[0] == b[0]).all() for a, b in zip(first, again, strict=True))
    assert (first[0][0] != other[0][0]).all(axis=0).any()


def test_a_dream_starts_from_a_recorded_first_frame_and_an_empty_memory() -> None:
    agent = dreamer()
    assert agent.starts is not None
    agent.starts[:, 1] = -60.0  # no uncertainty: z is mu
    observations, _ = DreamVectorEnv(64, agent).reset(seed=0)
    z, h = observations[:, :6], observations[:, 6:]
    assert (h == 0).all()
    nearest = np.abs(z[:, None] - agent.starts[:, 0].float().numpy()).max(axis=2).min(axis=1)
    assert nearest.max() < 1e-6
    assert len(np.unique(z.round(4), axis=0)) == 5, "every start is used"


def test_rows_that_ended_stay_as_they_are_until_they_are_reset() -> None:
    env = DreamVectorEnv(32, dreamer(end_bias=-2.0))
    history = dream_along(env, range(32), 30)
    ended = np.zeros(32, bool)
    for before, (observations, rewards, terminated, truncated) in pairwise(history):
        assert (observations[ended] == before[0][ended]).all()
        assert (rewards[ended] == 0).all() and not terminated[ended].any() and not truncated.any()
        ended |= terminated
    assert ended.sum() > 10
    last = history[-1][0]
    fresh, _ = env.reset(options={"reset_mask": ended})
    assert (fresh[~ended] == last[~ended]).all() and (fresh[ended] != last[ended]).any(axis=1).all()
    assert (fresh[ended][:, 6:] == 0).all()


def test_dreams_are_cut_at_the_limit_and_ended_ones_are_not_cut() -> None:
    env = DreamVectorEnv(32, dreamer(end_bias=-3.0), max_steps=12)
    ended, cut = np.zeros(32, bool), np.zeros(32, bool)
    for step, (_, _, terminated, truncated) in enumerate(dream_along(env, range(32), 14)[1:], start=1):
        assert not (terminated & truncated).any() and (step == 12 or not truncated.any())
        ended |= terminated
        cut |= truncated
    assert (ended ^ cut).all() and ended.any() and cut.any()


def test_with_same_step_autoreset_the_last_observation_is_kept_and_the_next_dream_starts() -> None:
    agent = dreamer(end_bias=-2.0)
    env = DreamVectorEnv(16, agent, autoreset_mode=AutoresetMode.SAME_STEP, dtype=torch.float32)
    plain = DreamVectorEnv(16, agent, dtype=torch.float32)
    env.reset(seed=3), plain.reset(seed=3)
    over = np.zeros(16, bool)
    for _ in range(20):
        action = np.full((16, 3), 0.3, np.float32)
        observations, _, terminated, _, info = env.step(action)
        wanted, _, first_end, *_ = plain.step(action)
        new = first_end & ~over
        assert (terminated[new]).all()
        for row in np.flatnonzero(new):
            np.testing.assert_allclose(info["final_obs"][row], wanted[row], atol=1e-5)
            assert (observations[row, 6:] == 0).all()
        over |= first_end
    assert over.any() and env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


@pytest.mark.parametrize("termination", ["sample", "threshold"])
def test_ends_come_by_chance_or_where_they_are_more_likely_than_not(termination: str) -> None:
    for bias, chance in ((-1.0, 0.27), (1.0, 0.73)):
        agent = dreamer(end_bias=bias)
        assert agent.memory.end_head is not None
        torch.nn.init.zeros_(agent.memory.end_head.weight)
        env = DreamVectorEnv(2000, agent, termination=termination)
        env.reset(seed=1)
        share = env.step(np.zeros((2000, 3), np.float32))[2].mean()
        assert share == (pytest.approx(chance, abs=0.04) if termination == "sample" else float(bias > 0))


def test_where_another_m_dreams_the_agents_own_only_follows_what_c_sees() -> None:
    agent, other = dreamer("take-cover", end_bias=-20.0), dreamer("take-cover", end_bias=-20.0, seed=1)
    other.starts = agent.starts
    agent.start_states, other.start_states = torch.randn(2, 5, 2, 16).half()
    alone, both = (
        Dreams(other, 1.1, dtype=torch.float32),
        Dreams(agent, 1.1, dtype=torch.float32, dream_model=other),
    )
    seeds = range(9)
    alone.reset(seeds)
    both.reset(seeds)
    state = tuple(part.clone() for part in both.policy_inputs().split([6, 16, 16], dim=1)[:0:-1])
    assert (state[0] != 0).any()
    for step in range(12):
        torch.testing.assert_close(both.z, alone.z)
        actions = torch.randn(9, 1, generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            state = agent.memory.step(both.z, actions, (state[0], state[1]))
        assert torch.equal(both.step(actions)[1], alone.step(actions)[1])
        # C of Doom sees z, c and h, in this order.
        torch.testing.assert_close(both.policy_inputs(), torch.cat([alone.z, state[1], state[0]], dim=1))
        torch.testing.assert_close(both.h[:, 16:], alone.h)


def test_an_end_is_as_likely_as_the_m_that_dreams_holds_it() -> None:
    agent, other = dreamer(end_bias=-20.0), dreamer(end_bias=20.0, seed=1)
    other.starts = agent.starts
    for termination in ("sample", "threshold"):
        dreams = Dreams(agent, termination=termination, dream_model=other)
        dreams.reset(range(50))
        assert dreams.step(torch.zeros(50, 3))[1].all()


def test_a_doom_dream_pays_one_for_every_tic_and_a_driving_dream_what_m_predicts() -> None:
    env = DreamVectorEnv(8, dreamer("take-cover", end_bias=-20.0))
    env.reset(seed=1)
    assert env.step(np.array([0, 1, 2, 0, 1, 2, 0, 1]))[1].tolist() == [1.0] * 8
    agent = dreamer(end_bias=-20.0)
    dreams = Dreams(agent, dtype=torch.float32)
    dreams.reset([5])
    reward, _ = dreams.step(torch.zeros(1, 3))
    with torch.no_grad():
        assert reward.item() == pytest.approx(agent.memory.reward_head(dreams.h).item(), abs=1e-5)  # type: ignore[misc]


def test_frames_are_decoded_on_request() -> None:
    env = gymnasium.make(
        "worldmodels.dream.env:worldmodels/Dream-v0", agent=dreamer(), observation="frame", render_mode="rgb_array"
    )
    observation, _ = env.reset(seed=1)
    assert observation.shape == (64, 64, 3) and observation.dtype == np.uint8
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    np.testing.assert_array_equal(frame, observation)


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
@pytest.mark.parametrize("observation", ["latent", "frame"])
def test_gymnasiums_checker_is_content(task: str, observation: str) -> None:
    check_env(DreamEnv(agent=dreamer(task), observation=observation), skip_render_check=True)


def test_gymnasium_alone_finds_the_dream_of_a_shipped_agent_by_its_name() -> None:
    line = (
        f"import gymnasium; print(gymnasium.make_vec({NAME!r}, num_envs=2, agent='car-racing').reset(seed=1)[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "(2, 288)", done.stderr


def test_make_vec_finds_the_dream_by_its_name() -> None:
    envs = gymnasium.make_vec(NAME, num_envs=3, agent=dreamer())
    observations, _ = envs.reset(seed=1)
    assert observations.shape == (3, 22) and observations in envs.observation_space
    assert envs.step(envs.action_space.sample())[0].shape == (3, 22)
    envs.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature above 0, got 0"),
        ({"temperature": -1.0}, "temperature above 0"),
        ({"temperature": float("nan")}, "temperature above 0"),
        ({"termination": "never"}, "unknown termination 'never'; choose from sample, threshold"),
        ({"observation": "pixels"}, "unknown observation 'pixels'; choose from latent, frame"),
        ({"max_steps": 0}, "max_steps of at least 1, got 0"),
        ({"num_envs": 0}, "at least 1 dream, got 0"),
    ],
)
def test_what_cannot_be_dreamt_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DreamVectorEnv(**{"agent": dreamer(), **options})


def test_an_agent_without_the_parts_of_a_dream_is_refused() -> None:
    agent = dreamer()
    for part, message in (("reward_head", "predicts the reward"), ("end_head", "predicts the end")):
        other = dreamer()
        setattr(other.memory, part, None)
        with pytest.raises(UserError, match=message):
            DreamVectorEnv(1, other)
    agent.starts = None
    with pytest.raises(UserError, match="no recorded frames"):
        DreamVectorEnv(1, agent)


def test_stepping_before_the_first_reset_is_refused() -> None:
    with pytest.raises(UserError, match="expected reset before step"):
        DreamVectorEnv(1, dreamer()).step(np.zeros((1, 3), np.float32))


def test_what_dreams_start_from_is_saved_with_the_agent(tmp_path: Any) -> None:
    agent = dreamer()
    agent.start_states = torch.randn(5, 2, 16).half()
    agent.save(tmp_path)
    found = load_agent(tmp_path)
    assert found.starts is not None and agent.starts is not None and torch.equal(found.starts, agent.starts)
    assert found.start_states is not None and torch.equal(found.start_states, agent.start_states)
    agent.start_states = agent.start_states[:3]
    agent.save(tmp_path)
    with pytest.raises(UserError, match="start_states"):
        load_agent(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda actions: actions[:1], r"expected actions as numbers of shape \(2, 3\), one per dream, got \(1, 3\)"),
        (lambda actions: actions.astype(str), "got .* <U"),
        (lambda actions: actions * np.nan, r"expected finite actions from \[-1.0, 0.0, 0.0\] to .*, got nan"),
        (lambda actions: actions + 7, "expected finite actions from .* got"),
    ],
)
def test_actions_that_the_real_world_would_not_take_are_refused_by_the_dream(change: Any, message: str) -> None:
    dreams = DreamVectorEnv(2, "car-racing")
    dreams.reset(seed=1)
    actions = np.asarray(dreams.action_space.sample())
    dreams.step(actions)
    with pytest.raises(UserError, match=message):
        dreams.step(change(actions))


def test_choices_that_there_are_not_are_refused_by_the_dream() -> None:
    dreams = DreamVectorEnv(2, "bin-packing")
    dreams.reset(seed=1)
    dreams.step(np.array([0, 1]))
    for wrong in (np.array([0, 500]), np.array([-1, 0]), np.array([0.5, 1.0])):
        with pytest.raises(UserError, match=r"expected (finite actions from 0|actions as whole numbers)"):
            dreams.step(wrong)
