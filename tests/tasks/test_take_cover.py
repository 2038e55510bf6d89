"""Doom TakeCover: the stock game, seen and acted on as the task says, and nothing left behind."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import vizdoom.gymnasium_wrapper  # noqa: F401

from worldmodels.core.errors import UserError
from worldmodels.data.collect import record_episodes
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.execution.process_env import ProcessVectorEnv
from worldmodels.render.stock import stock_env
from worldmodels.rollouts import rollout
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations, Policy, playing_of
from worldmodels.tasks.take_cover import world
from worldmodels.tasks.take_cover.task import TakeCover

TASK = TakeCover()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock environment, unlike the task, leaves its settings in the folder where it is started."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def shared_memory() -> set[str]:
    """What ViZDoom has in shared memory now."""
    return {path.name for path in Path("/dev/shm").glob("ViZDoom*")}


def games() -> set[int]:
    """Processes that run the game."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and b"+viz_instance_id" in world._command_line(folder):
            found.add(int(folder.name))
    return found


def nothing(count: int) -> Observations:
    """What policies observe that do not look."""
    return Observations(TASK, np.zeros((count, 1), np.uint8))


def folders() -> set[Path]:
    """Where games keep their settings."""
    return set(Path(tempfile.gettempdir()).glob("worldmodels-doom-*"))


def gone(before: set[str], running: set[int], seconds: float = 15.0) -> bool:
    """Whether everything new has disappeared, soon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if shared_memory() <= before and games() <= running:
            return True
        time.sleep(0.2)
    return False


def test_the_task_plays_the_stock_game_tic_by_tic() -> None:
    seeds, lengths = [3, 4], []
    for seed in seeds:
        stock = gymnasium.make("VizdoomTakeCover-v1")
        stock.reset(seed=seed)
        length = 0
        while True:
            _, reward, terminated, _, _ = stock.step(length // 5 % 3)
            assert reward == 1.0
            length += 1
            if terminated:
                break
        stock.close()
        lengths.append(length)

    class Script:
        def __init__(self) -> None:
            self.step = 0

        def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
            self.step += 1
            return np.full(len(rows), (self.step - 1) // 5 % 3)

    with contextlib.closing(make_envs(TASK, 2, "vizdoom")) as env:
        result = rollout(TASK, env, Script(), seeds, TASK.max_steps)
        again = rollout(TASK, env, Script(), seeds, TASK.max_steps)
    assert result.lengths.tolist() == result.returns.tolist() == lengths == again.lengths.tolist()
    assert result.terminated.all()


def test_recorded_episodes_keep_the_fatal_action_and_the_death() -> None:
    (episode,) = record_episodes(LocalExecutor(), TASK, "vizdoom", TASK.random_policy, [11], 2100)
    steps = len(episode.actions)
    assert episode.terminated and len(episode.frames) == steps + 1 and episode.rewards.tolist() == [1.0] * steps
    assert set(np.unique(episode.actions)) <= {-1.0, 0.0, 1.0}
    assert episode.frames[:-1].reshape(steps, -1).max(axis=1).min() > 0, "a black frame in the middle"
    assert (episode.frames[-1] == 0).all(), "the stock game shows nothing after death"


def test_a_game_that_is_survived_is_cut_at_the_limit() -> None:
    env = gymnasium.make(playing_of(TASK).gymnasium_id, max_episode_steps=20)
    env.reset(seed=1)
    flags = [env.step(0)[2:4] for _ in range(20)]
    env.close()
    assert flags == [(False, False)] * 19 + [(False, True)]
    spec = gymnasium.spec("worldmodels/TakeCover-v0")
    assert spec.max_episode_steps == TASK.max_steps == 2100


def test_controls_press_left_right_or_nothing() -> None:
    control = np.array([[-1.0], [-0.34], [-0.33], [0.0], [0.33], [0.34], [1.0]])
    assert TASK.env_action(control).tolist() == [2, 2, 0, 0, 0, 1, 1]
    seen = TASK.memory_action(TASK.env_action(control))
    assert seen.tolist() == [[-1.0], [-1.0], [0.0], [0.0], [0.0], [1.0], [1.0]]
    assert TASK.dream_action(torch.from_numpy(control)).tolist() == seen.tolist()
    keys = [frozenset(one) for one in (["left"], ["right"], [], ["up"])]
    assert [int(playing_of(TASK).key_action(one)) for one in keys] == [2, 1, 0, 0]


@pytest.mark.parametrize(("action", "side"), [(1, 1), (2, -1)])
def test_right_moves_right_and_left_moves_left(action: int, side: int) -> None:
    import vizdoom

    env = gymnasium.make("VizdoomTakeCover-v1", available_game_variables=["HEALTH", "POSITION_Y"])
    seen, _ = env.reset(seed=2)
    game: vizdoom.DoomGame = env.unwrapped.game  # type: ignore[attr-defined]
    buttons = [str(one).rpartition(".")[2] for one in game.get_available_buttons()]
    assert buttons == ["MOVE_LEFT", "MOVE_RIGHT"]
    start = seen["gamevariables"][1]
    for _ in range(8):
        seen, *_ = env.step(action)
    env.close()
    # The player looks along x, so that his right is towards negative y.
    assert np.sign(start - seen["gamevariables"][1]) == side


def test_frames_show_the_middle_of_the_screen() -> None:
    screen = np.zeros((1, 240, 320, 3), np.uint8)
    screen[:, 72:168] = 100
    assert TASK.frames(screen).shape == (1, 64, 64, 3) and (TASK.frames(screen) == 100).all()
    screen[:, :72], screen[:, 168:] = 255, 255
    assert (TASK.frames(screen) == 100).all()
    screen[:, 108:114, 160:170] = 250
    rows, columns = np.nonzero(TASK.frames(screen)[0, :, :, 0] > 150)
    assert rows.min() >= 24 and rows.max() <= 28 and columns.min() >= 31 and columns.max() <= 34


def test_the_random_policy_holds_a_key_for_one_to_ten_tics() -> None:
    policy = TASK.random_policy([1, 2])
    rows = np.arange(2)
    actions = np.stack([policy.act(nothing(2), rows) for _ in range(3000)])[:, 0]
    share = np.bincount(actions, minlength=3) / 3000
    assert (abs(share - 1 / 3) < 0.06).all()
    changes = np.flatnonzero(np.diff(actions)) + 1
    # A redraw gives the same key in one case of three: the mean hold of 5.5 looks like 8.25.
    assert 7 < np.diff(changes).mean() < 9.5


def test_a_closed_environment_leaves_nothing_behind() -> None:
    before, running, folder = shared_memory(), games(), set(os.listdir("."))
    with contextlib.closing(make_envs(TASK, 2, "vizdoom")) as env:
        env.reset(seed=[1, 2])
        assert games() > running
    assert gone(before, running) and set(os.listdir(".")) == folder


def test_the_game_is_started_anew_after_some_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "_EPISODES_PER_GAME", 2)
    running = games()
    env = world.TakeCoverWorld()
    seen = []
    for episode in range(4):
        env.reset(seed=episode)
        seen.append(games() - running)
    env.close()
    assert seen[0] == seen[1] != seen[2] == seen[3] and all(len(one) == 1 for one in seen)


_PLAY = """
import sys, time
import numpy as np
from worldmodels.execution.environments import make_envs
from worldmodels.tasks import get_task
env = make_envs(get_task("take-cover"), 2, "vizdoom")
env.reset(seed=[1, 2])
print("playing", *(worker.pid for worker in env._workers), flush=True)
while True:
    env.step(np.zeros(2, int))
    if not env._alive.any():
        env.reset(seed=[1, 2])
"""


_WATCH = """
from worldmodels.render.stock import stock_env
from worldmodels.tasks import get_task
env = stock_env(get_task("take-cover"))
env.reset(seed=1)
print("playing", flush=True)
while True:
    if env.step(0)[2]:
        env.reset(seed=1)
"""


@pytest.mark.parametrize("victim", ["parent", "worker", "watcher"])
def test_killing_leaves_no_game_and_no_shared_memory(victim: str, tmp_path: Path) -> None:
    before, running, temporary = shared_memory(), games(), folders()
    code = _WATCH if victim == "watcher" else _PLAY
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    pids = parent.stdout.readline().split()[1:]
    assert games() > running
    os.kill(int(pids[0]) if victim == "worker" else parent.pid, signal.SIGKILL)
    parent.wait(30)
    if victim != "parent":
        time.sleep(11)  # young shared memory may belong to a game that is just starting
        world.sweep()
    assert gone(before, running)
    deadline = time.monotonic() + 15
    while not folders() <= temporary and time.monotonic() < deadline:
        time.sleep(0.2)
    assert folders() <= temporary
    assert list(tmp_path.iterdir()) == []


def test_a_missing_vizdoom_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'vizdoom, not installed here; pip install "worldmodels\[doom\]"'):
        make_envs(TASK, 1, "vizdoom")
    with pytest.raises(UserError, match=r'vizdoom, not installed here; pip install "worldmodels\[doom\]"'):
        stock_env(TASK)


def test_a_game_that_crashes_while_it_is_watched_is_named_in_one_line() -> None:
    running = games()
    with contextlib.closing(stock_env(TASK)) as env:
        env.reset(seed=1)
        for process in games() - running:
            os.kill(process, signal.SIGKILL)
        with pytest.raises(UserError, match=r"TakeCover-v0 failed: .*; run the same command again") as caught:
            for _ in range(20):
                env.step(np.int64(0))
        assert "\n" not in str(caught.value)


def test_the_task_is_registered() -> None:
    assert isinstance(get_task("take-cover"), TakeCover)
    assert isinstance(make_envs(TASK, 1, "vizdoom"), ProcessVectorEnv)


def test_explorers_range_from_nervous_to_stubborn_and_random_ones_are_all_alike() -> None:
    """An M that never saw anybody stand still believes that it is safe."""

    def longest_holds(policy: Policy) -> np.ndarray:
        actions = np.array([policy.act(nothing(40), np.arange(40)) for _ in range(400)])
        assert set(np.unique(actions)) == {0, 1, 2}
        longest = np.zeros(40, int)
        run = np.zeros(40, int)
        for before, now in itertools.pairwise(actions):
            run = np.where(before == now, run + 1, 0)
            longest = np.maximum(longest, run)
        return longest

    seeds = list(range(40))
    explorers, random = longest_holds(TASK.exploration(seeds)), longest_holds(TASK.random_policy(seeds))
    assert explorers.min() < 30 and (explorers > 100).sum() >= 8
    assert random.max() < 80
