"""Stock environments in worker processes: aligned, frozen after the end, and not lost when a worker is."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from process_env_worlds import ACTION, ENV_ID, OBSERVATION
from worldmodels.core.errors import UserError
from worldmodels.execution.environments import make_envs
from worldmodels.execution.process_env import ProcessVectorEnv, WorkerDied, retrying
from worldmodels.rollouts import Rollouts, rollout
from worldmodels.tasks.base import Observations, ProcessWorld, World
from worlds import Scripted

TASK = Scripted()
"""Says nothing: its frames are never asked for."""
SEEDS = [4, 1, 2, 3, 8]
Maker = Callable[..., ProcessVectorEnv]


@pytest.fixture
def make() -> Iterator[Maker]:
    made: list[ProcessVectorEnv] = []

    def maker(count: int = len(SEEDS), processes: int = 2, timeout: float = 60.0, **options: Any) -> ProcessVectorEnv:
        env = ProcessVectorEnv(ENV_ID, count, OBSERVATION, ACTION, processes, timeout, options)
        made.append(env)
        return env

    yield maker
    for env in made:
        env.close()


class Script:
    """Acts with the number of its calls; ``strike`` is called before call number ``at``, once."""

    def __init__(self, strike: Callable[[], None] = lambda: None, at: int = -1) -> None:
        self.calls, self._strike, self._at = 0, strike, at

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == self._at:
            self._strike()
        steps = observations.raw[:, 1]
        return np.stack([10 * rows + steps, steps], axis=1).astype(np.float32)


class Recorder:
    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.transitions: list[tuple[int, np.ndarray, np.ndarray, float, np.ndarray]] = []

    def start(self, observations: Observations) -> None:
        self.seen = [row.copy() for row in observations.raw]

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        for place, row in enumerate(rows.tolist()):
            self.transitions.append((row, self.seen[row], actions[place], rewards[place], after.raw[place].copy()))
            self.seen[row] = after.raw[place].copy()


def undisturbed(make: Maker) -> Rollouts:
    return rollout(TASK, make(), Script(), SEEDS, 20)


def same(left: Rollouts, right: Rollouts) -> bool:
    return all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in ("returns", "lengths", "terminated")
    )


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def pids(env: ProcessVectorEnv) -> list[int]:
    return [worker.pid for worker in env._workers]


def test_every_transition_joins_what_was_seen_done_paid_and_seen_next(make: Maker) -> None:
    recorder = Recorder()
    played = rollout(TASK, make(), Script(), SEEDS, 20, observer=recorder)
    assert played.lengths.tolist() == [3 + seed % 4 for seed in SEEDS]
    assert played.terminated.tolist() == [seed % 2 == 0 for seed in SEEDS]
    assert len(recorder.transitions) == played.steps
    for row, before, action, reward, after in recorder.transitions:
        assert before[0] == after[0] == SEEDS[row]
        assert after[1] == before[1] + 1
        assert action.tolist() == [10 * row + before[1], before[1]]
        assert after[2:].tolist() == action.tolist()
        assert reward == 100 * SEEDS[row] + after[1] + action[0]


def test_a_row_that_has_ended_is_frozen_until_the_next_reset(make: Maker) -> None:
    env = make(2)
    env.reset(seed=[4, 3])  # 3 steps and 6 steps
    for step in range(1, 10):
        seen, rewards, ended, cut, _ = env.step(np.full((2, 2), step, np.float32))
        assert seen[0].tolist() == [4, min(step, 3), min(step, 3), min(step, 3)]
        assert rewards[0] == (400 + 2 * step if step <= 3 else 0)
        assert ended.tolist() == [step == 3, False]
        assert cut.tolist() == [False, step == 6]
    seen, _ = env.reset(seed=[5, 6])
    assert seen[:, :2].tolist() == [[5, 0], [6, 0]]


@pytest.mark.parametrize("processes", [1, 3, 50])
def test_the_number_of_processes_changes_nothing(make: Maker, processes: int) -> None:
    assert same(rollout(TASK, make(processes=processes), Script(), SEEDS, 20), undisturbed(make))


def test_a_worker_killed_in_the_middle_is_noticed_and_its_work_repeated(
    make: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    env = make()
    before: list[int] = []

    def kill() -> None:
        before.extend(pids(env))
        os.kill(before[1], signal.SIGKILL)

    policy = Script(kill, at=3)
    assert same(retrying(lambda: rollout(TASK, env, policy, SEEDS, 20)), undisturbed(make))
    warning = capsys.readouterr().err
    assert "worker 2 of 2" in warning and "SIGKILL" in warning and warning.count("\n") == 1
    assert len(before) == 2 and all(gone(pid) for pid in before)


def test_a_worker_that_hangs_is_noticed_within_the_timeout_and_its_work_repeated(
    make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = make(timeout=1.0, trouble="hang", once=str(tmp_path / "struck"))
    env.reset(seed=SEEDS)
    workers = pids(env)
    start = time.monotonic()
    assert same(retrying(lambda: rollout(TASK, env, Script(), SEEDS, 20)), undisturbed(make))
    assert 1.0 < time.monotonic() - start < 30
    assert "no answer in 1 s" in capsys.readouterr().err
    assert all(gone(pid) for pid in workers)


def test_a_worker_that_is_slow_but_alive_is_waited_for(make: Maker) -> None:
    env = make(count=8, processes=1, timeout=2.0, trouble="slow")
    env.reset(seed=range(8))
    assert env.step(np.zeros((8, 2), np.float32))[0][:, 1].tolist() == [1] * 8  # takes 2.4 s


def test_an_environment_that_raises_says_so_in_one_line_and_is_given_up_after_three_tries(
    make: Maker,
) -> None:
    env = make(trouble="raise")
    with pytest.raises(WorkerDied, match="ArithmeticError: the wheel came off") as caught:
        rollout(TASK, env, Script(), SEEDS, 20)
    assert "\n" not in str(caught.value)
    tries = Script()
    with pytest.raises(UserError, match=r"3 times.*the wheel came off") as final:
        retrying(lambda: rollout(TASK, env, tries, SEEDS, 20))
    assert tries.calls == 3 * 2
    assert not isinstance(final.value, WorkerDied) and "\n" not in str(final.value)


def test_a_worker_that_leaves_is_reported_with_its_exit_code(make: Maker) -> None:
    with pytest.raises(WorkerDied, match="exited with code 7"):
        rollout(TASK, make(trouble="exit"), Script(), SEEDS, 20)


def test_an_environment_that_cannot_be_made_is_no_reason_to_try_again(make: Maker) -> None:
    with pytest.raises(UserError, match=r"cannot make .*: RuntimeError: no licence for this world") as caught:
        make(trouble="unmakable").reset(seed=SEEDS)
    assert not isinstance(caught.value, WorkerDied)


def test_observations_of_another_shape_are_refused(make: Maker) -> None:
    with pytest.raises(WorkerDied, match=r"shape \(4,\), got \(1,\)"):
        make(shape=1).reset(seed=SEEDS)


def test_ctrl_c_in_the_middle_of_a_step_leaves_no_answer_for_the_next_command(make: Maker, tmp_path: Path) -> None:
    struck = tmp_path / "struck"
    env = make(trouble="hang", once=str(struck))
    env.reset(seed=SEEDS)
    env.step(np.zeros((5, 2), np.float32))

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def strike() -> None:
        until(struck.exists)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    previous = signal.signal(signal.SIGALRM, interrupt)
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            env.step(np.zeros((5, 2), np.float32))
    finally:
        striker.join()
        signal.signal(signal.SIGALRM, previous)
    assert same(rollout(TASK, env, Script(), SEEDS, 20), undisturbed(make))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_their_parent(make: Maker, number: signal.Signals) -> None:
    env = make()
    env.reset(seed=SEEDS)
    for pid in pids(env):
        os.kill(pid, number)
    assert env.step(np.zeros((5, 2), np.float32))[0][:, 1].tolist() == [1] * 5


def test_workers_import_no_torch_and_map_no_named_memory(make: Maker) -> None:
    env = make()
    env.reset(seed=SEEDS)
    for pid in pids(env):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "memfd:worldmodels" in maps
        assert "torch" not in maps and "/dev/shm" not in maps


def test_close_ends_the_workers_and_may_be_repeated(make: Maker) -> None:
    env = make()
    seen, _ = env.reset(seed=SEEDS)
    workers = pids(env)
    env.close()
    env.close()
    assert all(gone(pid) for pid in workers)
    assert seen[:, 0].tolist() == SEEDS  # memory that somebody still looks at stays
    with pytest.raises(UserError, match="closed"):
        env.reset(seed=SEEDS)


SCRIPT = """
import os, signal, sys, time
import numpy as np
from process_env_worlds import ACTION, ENV_ID, OBSERVATION
from worldmodels.execution.environments import make_envs
from worldmodels.execution.process_env import ProcessVectorEnv
env = ProcessVectorEnv(ENV_ID, 4, OBSERVATION, ACTION, processes=2, make_options={options})
env.reset(seed=[1, 1, 1, 1])
print(*[worker.pid for worker in env._workers], flush=True)
{then}
"""  # without the guard that multiprocessing would ask for


def start_script(options: dict[str, Any], then: str) -> tuple["subprocess.Popen[str]", list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(options=options, then=textwrap.dedent(then))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.parametrize("then", ["time.sleep(600)", "while True: env.step(np.zeros((4, 2), np.float32))"])
def test_killing_the_parent_leaves_no_process_and_no_shared_memory(tmp_path: Path, then: str) -> None:
    struck = tmp_path / "struck"  # exists as soon as a worker hangs in the second step
    process, workers = start_script({"trouble": "hang", "once": str(struck)}, then)
    assert len(workers) == 2
    if "step" in then:
        until(struck.exists)
    for pid in [process.pid, *workers]:
        assert "/dev/shm" not in Path(f"/proc/{pid}/maps").read_text()
    process.kill()
    _, errors = process.communicate(timeout=30)
    until(lambda: all(gone(pid) for pid in workers))
    assert errors == ""


def test_leaving_without_close_ends_the_workers_quietly() -> None:
    process, workers = start_script({}, "env.step(np.zeros((4, 2), np.float32))")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors, len(workers)) == (0, "", 2)
    assert all(gone(pid) for pid in workers)


class Lacking(Scripted):
    """A world in worker processes for which a package is missing."""

    @property
    def worlds(self) -> Mapping[str, World]:
        return {"slow": ProcessWorld(ENV_ID, requires=("numpy", "no_such_thing"), extra="car")}


def test_missing_packages_and_unknown_ids_are_told_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r'needs no_such_thing, not installed here; pip install "worldmodels\[car\]"'):
        make_envs(Lacking(), 1, "slow")
    for unknown in ("NoSuchWorld-v0", "no_such_module:World-v0", "not an id!"):
        with pytest.raises(UserError, match="unknown Gymnasium environment") as caught:
            ProcessVectorEnv(unknown, 1, OBSERVATION, ACTION)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="at least one"):
        ProcessVectorEnv(ENV_ID, 0, OBSERVATION, ACTION)


def test_car_racing_is_bit_identical_to_stepping_the_stock_environment() -> None:
    pytest.importorskip("Box2D")
    pytest.importorskip("pygame")
    seeds, generator = [11, 12], np.random.default_rng(0)
    actions = generator.uniform([-1, 0, 0], 1, (20, 2, 3)).astype(np.float32)
    stock = [gymnasium.make("CarRacing-v3") for _ in seeds]
    observation = spaces.Box(0, 255, (96, 96, 3), np.uint8)
    action = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
    env = ProcessVectorEnv("CarRacing-v3", 2, observation, action, processes=2)
    try:
        for again in range(2):  # the second time with environments that have been used before
            seen, _ = env.reset(seed=[seed + again for seed in seeds])
            expected = [one.reset(seed=seed + again)[0] for one, seed in zip(stock, seeds, strict=True)]
            assert np.array_equal(seen, np.stack(expected))
            for chosen in actions:
                seen, rewards, ended, cut, _ = env.step(chosen)
                steps = [one.step(row) for one, row in zip(stock, chosen, strict=True)]
                assert np.array_equal(seen, np.stack([step[0] for step in steps]))
                assert rewards.tolist() == [float(step[1]) for step in steps]
                assert not ended.any() and not cut.any()
    finally:
        env.close()
        for one in stock:
            one.close()
