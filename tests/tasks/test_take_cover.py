"""Doom TakeCover: the stock game, seen and acted on as the task says, and nothing left behind."""

import contextlib
import itertools
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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
from worldmodels.tasks.take_cover import engine, leftovers, world
from worldmodels.tasks.take_cover.task import TakeCover

TASK = TakeCover()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock environment, unlike the task, leaves its settings in the folder where it is started."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def shared_memory() -> set[str]:
    """What ViZDoom has in shared memory now."""
    return {path.name for path in Path("/dev/shm").glob("ViZDoom*")}


def _is_game(process: Path) -> bool:
    """Whether a process is a game that has not ended."""
    with contextlib.suppress(OSError):
        return b"+viz_instance_id" in (process / "cmdline").read_bytes()
    return False


def games() -> set[int]:
    """Processes that run the game."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and _is_game(folder):
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
    assert (episode.frames[-1] == 0).all() and not TASK.shows_end, "the stock game shows nothing after death"


def test_the_health_of_the_game_is_recorded_and_falls_until_death() -> None:
    episodes = record_episodes(LocalExecutor(), TASK, "vizdoom", TASK.random_policy, [11, 12, 13], 2100)
    for episode in episodes:
        health = episode.health
        assert health is not None and len(health) == len(episode.frames) and health[0] == TASK.full_health == 100
        assert (np.diff(health) <= 0).all() and (health[:-1] > 0).all()
        assert episode.terminated == (health[-1] == 0)


def test_the_last_frame_of_a_game_that_a_limit_ended_is_a_picture() -> None:
    for episode in record_episodes(LocalExecutor(), TASK, "vizdoom", TASK.random_policy, [11, 12], 30):
        assert not episode.terminated and len(episode.frames) == 31
        assert episode.frames.reshape(31, -1).max(axis=1).min() > 0


def test_after_death_the_observation_is_black_and_pictures_show_the_last_living_screen() -> None:
    with contextlib.closing(stock_env(TASK)) as env:
        env.reset(seed=1)
        living, terminated = np.zeros(0), False
        while not terminated:
            living = np.array(env.render())
            seen, _, terminated, _, _ = env.step(np.int64(0))
        shown = np.array(env.render())
        assert not seen.any() and living.any() and (shown == living).all()
        first, _ = env.reset(seed=2)
        assert (np.array(env.render()) == first).all()


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


@contextlib.contextmanager
def playing(code: str, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that runs ``code`` and plays, and the ids of its workers; killed in the end."""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=cwd)
    assert parent.stdout is not None
    try:
        yield parent, [int(word) for word in parent.stdout.readline().split()[1:]]
    finally:
        parent.kill()
        parent.wait(30)
        parent.stdout.close()


@pytest.mark.parametrize("victims", ["parent", "worker", "parent and workers", "watcher"])
def test_killing_leaves_no_game_and_no_shared_memory_and_the_next_start_removes_the_folder(
    victims: str, tmp_path: Path
) -> None:
    before, running, temporary = shared_memory(), games(), folders()
    with playing(_WATCH if victims == "watcher" else _PLAY, tmp_path) as (parent, workers):
        assert games() > running
        for pid in [] if victims in ("parent", "watcher") else workers[:1] if victims == "worker" else workers:
            with contextlib.suppress(ProcessLookupError):  # The parent may have ended the others by itself.
                os.kill(pid, signal.SIGKILL)
        if victims != "worker":
            parent.kill()
        parent.wait(30)
        assert gone(before, running)
        deadline = time.monotonic() + 15
        while not folders() <= temporary and time.monotonic() < deadline:
            leftovers.sweep()
            time.sleep(0.1)
        assert folders() <= temporary
        assert list(tmp_path.iterdir()) == []


def test_a_sweep_leaves_the_games_of_a_container_whose_processes_it_cannot_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = folders()
    with playing(_PLAY, tmp_path) as (parent, _):
        new = folders() - temporary
        assert len(new) == 2
        with monkeypatch.context() as patch:
            patch.setattr(leftovers, "_PROCESSES", tmp_path)
            leftovers.sweep()
        assert folders() >= new and all((folder / "engine.sh").exists() for folder in new) and parent.poll() is None
    while not folders().isdisjoint(new):  # until the killed processes have let go of their locks
        leftovers.sweep()


def test_a_game_whose_player_died_while_it_started_does_not_start(tmp_path: Path) -> None:
    started = [sys.executable, "-IS", engine.__file__]
    alive = subprocess.run([*started, str(os.getpid()), "/bin/echo", "played"], capture_output=True, text=True)
    assert (alive.returncode, alive.stdout) == (0, "played\n")
    late = subprocess.run([*started, str(os.getppid()), "/bin/echo", "played"], capture_output=True, text=True)
    assert (late.returncode, late.stdout) == (1, "") and "died before the game started" in late.stderr


def test_a_folder_belongs_to_who_holds_it_however_old_it_is_and_a_process_id_means_nothing() -> None:
    held, abandoned = leftovers.GameFolder(), Path(tempfile.mkdtemp(prefix=f"worldmodels-doom-{os.getpid()}-"))
    for path in (held.path, abandoned):
        os.utime(path, (0, 0))
    leftovers.sweep()
    assert held.path.is_dir() and not abandoned.exists()
    held.remove()
    assert not held.path.exists()


def test_a_game_without_a_player_is_killed_when_its_folder_is_swept(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="worldmodels-doom-"))
    sleep = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
    game = subprocess.Popen([*sleep, "+viz_instance_id", "x"], cwd=folder, stdout=subprocess.PIPE)
    visitor = subprocess.Popen(sleep, cwd=folder, stdout=subprocess.PIPE)
    try:
        for process in (game, visitor):
            assert process.stdout is not None and process.stdout.readline() == b"here\n"
        leftovers.sweep()
        assert game.wait(30) == -signal.SIGKILL and visitor.poll() is None and not folder.exists()
    finally:
        for process in (game, visitor):
            process.kill()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()


def test_shared_memory_is_removed_when_no_process_has_it_open_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_SHARED", tmp_path)
    mapped, unused, other = tmp_path / "ViZDoomSMmapped", tmp_path / "ViZDoomMQCtrunused", tmp_path / "other"
    for file in (mapped, unused, other):
        file.write_bytes(bytes(4096))
    with mapped.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 4096)
    leftovers.sweep()
    assert mapped.exists() and not unused.exists() and other.exists()
    memory.close()
    leftovers.sweep()
    assert not mapped.exists()


def test_a_sweep_follows_no_links_and_leaves_what_another_user_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_SHARED", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "mine"
    victim.mkdir()
    (victim / "file").write_text("precious")
    (tmp_path / "worldmodels-doom-link").symlink_to(victim)
    (tmp_path / "ViZDoomSMlink").symlink_to(victim / "file")
    theirs, segment = tmp_path / "worldmodels-doom-theirs", tmp_path / "ViZDoomSMtheirs"
    theirs.mkdir()
    segment.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: os.geteuid() + 1)
        leftovers.sweep()
    assert theirs.is_dir() and segment.exists()
    leftovers.sweep()
    assert not theirs.exists() and not segment.exists()
    assert (victim / "file").read_text() == "precious" and (tmp_path / "worldmodels-doom-link").is_symlink()


def test_too_little_shared_memory_is_named_in_one_line_before_games_start(monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.statvfs("/dev/shm")
    free = 8_000_000 // system.f_frsize
    little = os.statvfs_result((*system[:4], free, *system[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: little)
    with pytest.raises(UserError, match=r"15.0 MB of free shared memory in /dev/shm for 50 games of Doom, got 8.0 MB"):
        make_envs(TASK, 50, "vizdoom")
    with pytest.raises(UserError, match=r"fewer at once \(--num-envs, .* --shm-size=256m") as caught:
        make_envs(TASK, 50, "vizdoom")
    assert "\n" not in str(caught.value)
    make_envs(TASK, 20, "vizdoom").close()


def test_a_game_needs_no_more_shared_memory_than_is_checked_for() -> None:
    stock = gymnasium.make("VizdoomTakeCover-v1")
    stock.reset(seed=1)
    instance = stock.unwrapped.game.get_instance_id()  # type: ignore[attr-defined]
    used = [path.stat().st_blocks * 512 for path in Path("/dev/shm").glob(f"ViZDoom*{instance}")]
    stock.close()
    assert len(used) == 3 and 0 < sum(used) <= leftovers._GAME_BYTES


def test_the_shared_memory_of_a_running_game_has_no_name_that_could_stay() -> None:
    with contextlib.closing(world.TakeCoverWorld()) as env:
        env.reset(seed=1)
        assert not list(Path("/dev/shm").glob(f"ViZDoom*{env._game.game.get_instance_id()}"))
        assert [env.step(0)[1] for _ in range(3)] == [1.0] * 3


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
