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

from worldmodels.core.cores import usable_cores
from worldmodels.core.errors import UserError
from worldmodels.execution.frozen_rows import FrozenRowsEnv
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
from worldmodels.tasks.base import ActionSpace

__all__ = ["ProcessVectorEnv", "WorkerDied", "retrying"]

_STARTING_SECONDS = 60.0
"""A worker may always take this long to start, even if the timeout is shorter."""


class ProcessVectorEnv(FrozenRowsEnv):
    """N copies of ``gymnasium.make(env_id)`` in worker processes, each of which steps its copies in turn.

    Workers start at the first ``reset``. When a worker dies, raises or makes no progress for ``timeout`` seconds, all
    workers are ended and WorkerDied is raised; the next ``reset`` starts new ones.

    env_id: also as "module:Id-v0"; an unknown one is a UserError; processes: number of workers (None: one per core,
    at most one per row); make_options: of ``gymnasium.make``; when_closed: called after the workers have ended; health:
    whether the info holds "health" (N,) float32, NaN where an environment's own info does not.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        observation: spaces.Box,
        action: ActionSpace,
        processes: int | None = None,
        timeout: float = 60.0,
        make_options: Mapping[str, Any] | None = None,
        when_closed: Callable[[], None] | None = None,
        health: bool = False,
    ) -> None:
        if num_envs < 1 or (processes is not None and processes < 1) or timeout <= 0:
            raise UserError(
                "expected at least one environment and process and a timeout above 0, "
                f"got {num_envs} environments, {processes} processes, {timeout:g} s"
            )
        check_id(env_id)
        self._env_id, self._timeout = env_id, timeout
        self._options: dict[str, Any] = {"disable_env_checker": True, **(make_options or {})}
        count = min(num_envs, processes or usable_cores())
        # Rows are dealt out in turn, because neighbouring rows often end at similar times.
        self._rows = [list(range(worker, num_envs, count)) for worker in range(count)]
        self._layout = layout_of(observation, action, num_envs, count, health)
        self._fd = anonymous_file(self._layout)
        self._shared = map_arrays(self._fd, self._layout)
        self._set_up(observation, action, self._shared)
        self._workers: list[Worker] = []
        # Also runs when the interpreter exits and when an environment is garbage-collected without close().
        self._finalizer = weakref.finalize(self, _dispose, self._workers, self._fd, os.getpid(), when_closed)

    @property
    def _started(self) -> bool:
        return bool(self._workers)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """First observations (N, ...) of new episodes, and their info. seed: one per row, or one for all."""
        if not self._finalizer.alive:
            raise UserError("this environment is closed; make a new one")
        return super().reset(seed=seed, options=options)

    def _reset_rows(self, seeds: Mapping[int, int]) -> None:
        with self._ending_workers_on_error():
            if not self._workers:
                self._start()
            self._ask([("reset", [(row, seeds[row]) for row in rows if row in seeds]) for rows in self._rows])

    def _step_rows(self) -> None:
        with self._ending_workers_on_error():
            self._ask([("step", [row for row in rows if self._alive[row]]) for rows in self._rows])

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


def check_id(env_id: str) -> None:
    """Raise :class:`UserError` for an id that Gymnasium does not know."""
    try:
        module, _, name = env_id.rpartition(":")
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"unknown Gymnasium environment {env_id!r}: {one_line(error)}") from None
