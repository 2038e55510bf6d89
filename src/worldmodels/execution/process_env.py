"""Gymnasium environments in worker processes, as one vector environment that never resets by itself.

When a worker dies or hangs, :class:`WorkerDied` is raised; :func:`retrying` repeats the lost work.
"""

import contextlib
import importlib
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.core.cores import usable_cores
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import row_seeds
from worldmodels.execution.process_worker import (
    CLOSING_SECONDS,
    Worker,
    anonymous_file,
    end_workers,
    layout_of,
    map_arrays,
    one_line,
)
from worldmodels.execution.recover import WorkerDied, retrying

__all__ = ["ProcessVectorEnv", "WorkerDied", "retrying"]

_STARTING_SECONDS = 60.0
"""A worker may always take this long to start, even if the timeout is shorter."""


class ProcessVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N copies of ``gymnasium.make(env_id)`` in worker processes, each of which steps its copies in turn.

    A row that has ended is not stepped any more: it keeps its last observation, with reward 0 and both flags
    False, until the next reset. ``reset`` and ``step`` return the same array of observations every time and
    overwrite it. Workers start at the first ``reset``. When a worker dies, raises or makes no progress for
    ``timeout`` seconds, all workers are ended and WorkerDied is raised; the next ``reset`` starts new ones.

    env_id: also as "module:Id-v0"; an unknown one is a UserError; processes: number of workers (None: one per core,
    at most one per row); make_options: of ``gymnasium.make``; when_closed: called after the workers have ended.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        observation: spaces.Box,
        action: spaces.Box | spaces.Discrete,
        processes: int | None = None,
        timeout: float = 60.0,
        make_options: Mapping[str, Any] | None = None,
        when_closed: Callable[[], None] | None = None,
    ) -> None:
        if num_envs < 1 or (processes is not None and processes < 1) or timeout <= 0:
            raise UserError(
                "expected at least one environment and process and a timeout above 0, "
                f"got {num_envs} environments, {processes} processes, {timeout:g} s"
            )
        _check_id(env_id)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space = batch_space(observation, num_envs)
        self.action_space = batch_space(action, num_envs)
        self._env_id, self._timeout = env_id, timeout
        self._options: dict[str, Any] = {"disable_env_checker": True, **(make_options or {})}
        count = min(num_envs, processes or usable_cores())
        # Rows are dealt out in turn, because neighbouring rows often end at similar times.
        self._rows = [list(range(worker, num_envs, count)) for worker in range(count)]
        self._layout = layout_of(observation, action, num_envs, count)
        self._fd = anonymous_file(self._layout)
        self._shared = map_arrays(self._fd, self._layout)
        self._alive = np.zeros(num_envs, dtype=bool)
        self._workers: list[Worker] = []
        # Also runs when the interpreter exits and when an environment is garbage-collected without close().
        self._finalizer = weakref.finalize(self, _dispose, self._workers, self._fd, os.getpid(), when_closed)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """First observations (N, ...) of new episodes, and an empty info. seed: one per row, or one for all."""
        if not self._finalizer.alive:
            raise UserError("this environment is closed; make a new one")
        seeds = row_seeds(seed, self.num_envs)
        with self._ending_workers_on_error():
            if not self._workers:
                self._start()
            self._ask([("reset", [(row, seeds[row]) for row in rows]) for rows in self._rows])
        self._alive[:] = True
        return self._shared["observations"], {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the rows that are still running; ``actions`` (N, A) holds a row for every environment."""
        shared, alive = self._shared, self._alive
        if alive.any():
            np.copyto(shared["actions"], actions, casting="same_kind")
            with self._ending_workers_on_error():
                self._ask([("step", [row for row in rows if alive[row]]) for rows in self._rows])
        elif not self._workers:
            raise UserError("expected reset before step: no episode is running")
        # The shared memory of a frozen row still holds the results of its last step.
        rewards = np.where(alive, shared["rewards"], 0.0)
        terminated, truncated = alive & shared["terminated"], alive & shared["truncated"]
        self._alive &= ~(terminated | truncated)
        return shared["observations"], rewards, terminated, truncated, {}

    def retire(self, rows: np.ndarray) -> None:
        """Freeze the rows ``rows``, which are not needed any more, as if they had ended, until the next reset."""
        self._alive[rows] = False

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments and end the workers."""
        self._alive[:] = False
        self._finalizer()

    def _start(self) -> None:
        for rows in self._rows:
            self._workers.append(Worker(self._fd))
            setup = ("make", (self._env_id, self._options, rows, self._layout, len(self._workers) - 1))
            self._workers[-1].send(setup)
        # Importing a big simulator takes long on a busy machine, and the heartbeat stands still meanwhile.
        self._collect(list(range(len(self._workers))), max(self._timeout, _STARTING_SECONDS))

    def _ask(self, commands: list[tuple[str, list[Any]]]) -> None:
        asked = [index for index, (_, rows) in enumerate(commands) if rows]
        for index in asked:
            self._workers[index].send(commands[index])
        self._collect(asked, self._timeout)

    def _collect(self, pending: list[int], timeout: float) -> None:
        """Wait for the answers of the workers ``pending``; a worker is slow, not hung, while its heartbeat goes on."""
        beats, workers = self._shared["beats"], self._workers
        last_beats = dict.fromkeys(pending, (-1, time.monotonic()))
        waiting = {workers[index].connection: index for index in pending}
        while waiting:
            for connection in wait(list(waiting), timeout / 10):
                assert isinstance(connection, Connection)
                self._check(waiting.pop(connection), connection)
            now = time.monotonic()
            for index in waiting.values():
                beat = int(beats[index])
                if beat != last_beats[index][0]:
                    last_beats[index] = beat, now
                elif now - last_beats[index][1] > timeout:
                    raise WorkerDied(f"{self._name(index)} gave no answer in {timeout:g} s")

    def _check(self, index: int, connection: Connection) -> None:
        try:
            verdict, text = connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(f"{self._name(index)} {self._workers[index].exit_reason()}") from None
        if verdict == "make failed":
            raise UserError(f"cannot make the environment {self._env_id}: {text}")
        if verdict == "raised":
            raise WorkerDied(f"{self._name(index)} raised {text}")

    def _name(self, index: int) -> str:
        return f"worker {index + 1} of {len(self._workers)} ({self._env_id}, pid {self._workers[index].pid})"

    @contextlib.contextmanager
    def _ending_workers_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # also Ctrl-C: an answer left in a pipe would be taken for that to the next command
            self._alive[:] = False
            end_workers(self._workers, patience=0.0)
            raise


def _dispose(workers: list[Worker], fd: int, owner: int, when_closed: Callable[[], None] | None) -> None:
    if os.getpid() == owner:  # not in a process that was forked from the owner
        end_workers(workers, CLOSING_SECONDS)
        os.close(fd)
        if when_closed is not None:
            when_closed()


def _check_id(env_id: str) -> None:
    try:
        module, _, name = env_id.rpartition(":")
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"unknown Gymnasium environment {env_id!r}: {one_line(error)}") from None
