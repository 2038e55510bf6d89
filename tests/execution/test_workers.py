"""Chunks of work in worker processes: in order, sent once, repeated when a process is lost, and never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from toy import SIZE, toy_agent
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.read_only import ReadOnly
from worldmodels.evolution.fitness import WorldFitness
from worldmodels.execution.environments import SERIAL_ROWS, Environments
from worldmodels.execution.executor import Executor, LocalExecutor
from worldmodels.execution.process_worker import Activity
from worldmodels.execution.workers import WorkersExecutor
from worldmodels.rollouts import Rollouts, rollout
from worldmodels.tasks.base import Observations, ProcessWorld, World
from worlds import Scripted

Maker = Callable[..., WorkersExecutor]


class Counted(Scripted):
    """Copies of a Gymnasium environment that counts its steps; options: of that environment."""

    observation_shape = (4,)
    action_space = spaces.Box(-100, 100, (2,), np.float32)

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    @property
    def worlds(self) -> Mapping[str, World]:
        return {"slow": ProcessWorld("process_env_worlds:Small-v0", options=self._options)}


class Player:
    """Acts with the number of the episode that a row plays, as far as it has been told."""

    def __init__(self, rows: int) -> None:
        self._episodes = np.arange(rows)

    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        self._episodes[rows] = episodes

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._episodes[rows], np.zeros(len(rows))], axis=1).astype(np.float32)


@pytest.fixture
def make() -> Iterator[Maker]:
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(contextlib.closing(WorkersExecutor(*arguments)))


def play(task: Counted, seeds: Sequence[int], environments: Environments) -> Rollouts:
    env = environments.of(task, len(seeds), "slow", refill=True)
    return rollout(task, env, Player(env.num_envs), seeds, 20)


def wanted(seeds: Sequence[int]) -> list[float]:
    """The returns of :func:`play`: 100 * seed + steps + number of the episode, for 3 + seed % 4 steps."""
    counts = [3 + seed % 4 for seed in seeds]
    return [
        (100 * seed + place) * count + count * (count + 1) / 2
        for place, (seed, count) in enumerate(zip(seeds, counts, strict=True))
    ]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def number_and_pid(number: int, environments: Environments) -> tuple[int, int]:
    time.sleep(0.05 * (number % 3))
    return number, os.getpid()


def test_results_come_in_the_order_of_chunks_from_as_many_processes_as_asked_for(make: Maker) -> None:
    results = list(make(3).map([partial(number_and_pid, number) for number in range(9)]))
    assert [number for number, _ in results] == list(range(9))
    pids = {pid for _, pid in results}
    assert len(pids) == 3 and os.getpid() not in pids


def test_a_single_chunk_and_a_single_core_need_no_worker(make: Maker) -> None:
    assert list(make(2).map([partial(number_and_pid, 1)])) == [(1, os.getpid())]
    assert {pid for _, pid in make(1).map([partial(number_and_pid, number) for number in (1, 2)])} == {os.getpid()}


class Heavy(ReadOnly):
    """Counts how often it is pickled; holds another object of its kind."""

    pickled = 0

    def __init__(self, weights: np.ndarray, part: "Heavy | None" = None) -> None:
        self.weights, self.part = weights, part

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__


def test_what_chunks_only_read_is_sent_to_every_worker_once(make: Maker) -> None:
    inner = Heavy(np.arange(5.0))
    outer = Heavy(np.ones(3), inner)

    def chunk(environments: Environments) -> tuple[int, int, int, float]:  # a closure of this test
        assert outer.part is inner
        return os.getpid(), id(outer), id(inner), float(inner.weights.sum() + outer.weights.sum())

    workers, Heavy.pickled = make(2), 0
    first = list(workers.map([chunk] * 6))
    assert Heavy.pickled == 2 and {one[3] for one in first} == {13.0}
    assert len({one[:3] for one in first}) == 2, "one object of each kind in each process"
    assert {one[:3] for one in workers.map([chunk] * 6)} == {one[:3] for one in first}, "kept for the next chunks"
    inner.weights[0] = 7.0
    assert {one[3] for one in workers.map([chunk] * 6)} == {20.0}, "an object that has changed is sent again"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(3, 4).t(),
        torch.randn(3, 4)[:, 1:],
        torch.randn(7, 4, dtype=torch.bfloat16)[2:],
        torch.tensor(3),
        torch.zeros(0, 4),
        torch.ones(2, dtype=torch.bool),
        torch.nn.Parameter(torch.randn(2, 2)),
        torch.randn(3, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {tensor.requires_grad}",
)
def test_a_tensor_reaches_a_worker_as_it_is(make: Maker, tensor: torch.Tensor) -> None:
    held = Heavy(np.ones(1))
    held.weights = tensor  # type: ignore[assignment]

    def chunk(environments: Environments) -> tuple[np.ndarray, tuple[int, ...], torch.dtype, bool, type]:
        here: Any = held.weights
        return here.detach().float().numpy(), here.stride(), here.dtype, here.requires_grad, type(here)

    for came, *rest in make(2).map([chunk] * 2):
        assert rest == [tensor.stride(), tensor.dtype, tensor.requires_grad, type(tensor)]
        assert np.array_equal(came, tensor.detach().float().numpy())


def test_a_worker_computes_with_one_thread(make: Maker) -> None:
    def threads(environments: Environments) -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    assert list(make(2).map([threads] * 2)) == [1, 1] and torch.get_num_threads() == before


def test_a_killed_worker_is_replaced_and_its_chunk_repeated(
    make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def chunk(number: int, environments: Environments) -> int:
        if number == 2 and not (tmp_path / "struck").exists():
            (tmp_path / "struck").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    workers = make(2)
    assert list(workers.map([partial(chunk, number) for number in range(5)])) == list(range(5))
    warning = capsys.readouterr().err
    assert "was killed by SIGKILL; starting again (attempt 2 of 3)" in warning and warning.count("\n") == 1


def test_a_chunk_that_kills_every_worker_is_given_up_after_three_tries(make: Maker) -> None:
    def chunk(environments: Environments) -> None:
        os._exit(7)

    workers = make(2)
    with pytest.raises(UserError, match=r"gave up after trying 3 times.* exited with code 7"):
        list(workers.map([chunk, chunk]))
    assert [number for number, _ in workers.map([partial(number_and_pid, 1)] * 2)] == [1, 1], (
        "later chunks get new workers"
    )


def test_an_environment_that_hangs_is_noticed_but_a_long_computation_is_waited_for(
    make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def compute(environments: Environments) -> None:
        time.sleep(4.0)

    workers = make(2, 2.0)
    list(workers.map([compute, compute]))
    assert capsys.readouterr().err == ""
    task = Counted(trouble="hang", once=str(tmp_path / "struck"))
    results = list(workers.map([partial(play, task, [1, 2]), partial(play, task, [4, 8])]))
    assert [one.returns.tolist() for one in results] == [wanted([1, 2]), wanted([4, 8])]
    assert "gave no answer in 2 s; starting again" in capsys.readouterr().err


def test_what_a_chunk_raises_is_raised_here(make: Maker) -> None:
    def wrong(environments: Environments) -> None:
        raise UserError("expected a cat, got a dog; feed it")

    def broken(environments: Environments) -> None:
        raise ZeroDivisionError("of all things")

    workers = make(2)
    with pytest.raises(UserError, match=r"^expected a cat, got a dog; feed it$"):
        list(workers.map([wrong, wrong]))
    with pytest.raises(ZeroDivisionError, match="of all things") as caught:
        list(workers.map([broken, broken]))
    assert "in a worker process" in caught.value.__notes__[0] and "in broken" in caught.value.__notes__[0]


@pytest.mark.parametrize("trouble", ["raise", "unmakable"])
def test_an_environment_that_raises_or_cannot_be_made_is_told_in_one_line(make: Maker, trouble: str) -> None:
    task = Counted(trouble=trouble)
    told = {"raise": r"3 times.*ArithmeticError: the wheel came off", "unmakable": "cannot make.*no licence for this"}
    with pytest.raises(UserError, match=told[trouble]) as caught:
        list(make(2).map([partial(play, task, [1, 2])] * 2))
    assert "\n" not in str(caught.value)


def test_no_worker_and_no_answer_is_left_when_the_results_are_not_wanted_any_more(make: Maker) -> None:
    workers = make(2)
    results = workers.map([partial(number_and_pid, number) for number in range(6)])
    _, pid = next(results)
    results.close()  # type: ignore[attr-defined]
    assert gone(pid)
    assert [number for number, _ in workers.map([partial(number_and_pid, number) for number in (7, 8)])] == [7, 8]
    pids = [pid for _, pid in workers.map([partial(number_and_pid, number) for number in (7, 8)])]
    workers.release()
    assert all(gone(pid) for pid in pids)


def test_a_request_to_stop_ends_the_wait(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(environments: Environments) -> None:
        time.sleep(600)

    workers = make(2)
    monkeypatch.setattr(interrupt, "_received", int(signal.SIGINT))
    with pytest.raises(interrupt.Interrupted):
        list(workers.map([slow, slow]))


SCRIPT = """
import os, time
from worldmodels.execution.workers import WorkersExecutor

def chunk(environments):
    print(os.getpid(), file=open({file!r}, "a"))
    time.sleep({seconds})

list(WorkersExecutor(2).map([chunk, chunk]))
"""


@pytest.mark.parametrize("killed", [True, False])
def test_workers_end_with_their_parent_even_if_it_is_killed_or_forgets_them(tmp_path: Path, killed: bool) -> None:
    file = tmp_path / "pids"
    script = SCRIPT.format(file=str(file), seconds=600 if killed else 0)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not file.exists() or len(file.read_text().split()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if killed:
        process.kill()
    _, errors = process.communicate(timeout=60)
    pids = [int(pid) for pid in file.read_text().split()]
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert errors == ""


def test_the_division_of_work_is_even_and_knows_nothing_of_the_number_of_workers() -> None:
    divisions = ((1, 50, 1), (12, 50, 1), (13, 50, 2), (48, 256, 4), (64, 256, 4), (96, 256, 8), (1000, 50, 32))
    for total, together, chunks in divisions:
        assert {WorkersExecutor(count).divide(total, together) for count in (1, 2, 64)} == {chunks}
    assert WorkersExecutor(2).divide(20, 4) == 5, "no more at once than allowed"


def test_rows_that_have_ended_begin_the_next_episode_and_returns_are_those_of_their_own_episodes() -> None:
    task, seeds = Counted(), list(range(40))
    environments = Environments(Activity())
    env = environments.of(task, len(seeds), "slow", refill=True)
    assert env.num_envs == SERIAL_ROWS < len(seeds)
    played = play(task, seeds, environments)
    assert played.returns.tolist() == wanted(seeds)
    assert played.lengths.tolist() == [3 + seed % 4 for seed in seeds]
    assert played.terminated.tolist() == [seed % 2 == 0 for seed in seeds]
    assert environments.of(task, 3, "slow") is env and env.num_envs == 3, "the copies are kept for fewer rows"
    environments.close()


def test_refilled_rows_have_their_own_longest_step_and_patience() -> None:
    task, seeds = Counted(), [0] * 40
    environments = Environments(Activity())
    env = environments.of(task, len(seeds), "slow", refill=True)
    played = rollout(task, env, Player(env.num_envs), seeds, 2)
    assert played.lengths.tolist() == [2] * 40 and not played.terminated.any()

    class Debtor(Player):
        """Earns less than nothing in every second episode."""

        def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
            actions = super().act(observations, rows)
            return np.where(self._episodes[rows, None] % 2 == 0, -1000.0, 0.0).astype(np.float32) + 0 * actions

    played = rollout(task, env, Debtor(env.num_envs), [3] * 40, 20, patience=4)
    assert played.lengths.tolist() == [4, 6] * 20
    environments.close()


def test_part_of_the_rows_can_only_be_reset_after_all_of_them() -> None:
    env = Environments(Activity()).of(Counted(), 3, "slow")
    with pytest.raises(UserError, match="reset of all rows before"):
        env.reset(seed=[1, 2, 3], options={"reset_mask": np.array([True, False, False])})
    env.reset(seed=[1, 2, 3])
    env.step(np.zeros((3, 2), np.float32))
    seen, _ = env.reset(seed=[7, 7, 7], options={"reset_mask": np.array([False, True, False])})
    assert seen[:, :2].tolist() == [[1, 1], [7, 0], [3, 1]]
    env.close()


class FirstParameter(Player):
    """Acts with the first parameter of the controller of each row's episode."""

    def __init__(self, rows: int, controllers: torch.Tensor, seeds: Sequence[int] | None = None) -> None:
        super().__init__(rows)
        self._first = controllers[:, 0].numpy()

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._first[self._episodes[rows]], np.zeros(len(rows), np.float32)], axis=1)


@pytest.mark.parametrize("executor", [LocalExecutor(), WorkersExecutor(1), WorkersExecutor(2), WorkersExecutor(3)])
def test_fitness_depends_neither_on_the_executor_nor_on_the_number_of_its_workers(executor: Executor) -> None:
    agent = toy_agent(Counted(), FirstParameter)
    controllers = np.random.default_rng(1).standard_normal((9, SIZE))
    seeds = [1, 2, 3, 4, 5, 6]
    with contextlib.closing(executor):
        returns, steps = WorldFitness(executor, agent, "slow")(controllers, seeds, 20, patience=3)
    lengths = [3 + seed % 4 for seed in seeds]
    assert steps == 9 * sum(lengths)
    own = controllers[:, 0]
    for count, seed, column in zip(lengths, seeds, returns.T, strict=True):
        assert np.allclose(column, count * (100 * seed + own) + count * (count + 1) / 2, rtol=1e-5)
