"""The worker processes of ProcessVectorEnv, the parent's handle on them, and the memory that both share.

Imports no torch, because workers must start quickly.
"""

import contextlib
import functools
import gc
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces

from worldmodels.core.headless import headless

if TYPE_CHECKING:
    from worldmodels.tasks.base import ActionSpace

_GARBAGE = 50_000
"""Threshold of Python's garbage collector in a worker, in new objects. Rendering makes thousands of objects per step,
none of them in reference cycles; with Python's default of 700 the collector costs CarRacing a tenth of its speed."""
HANDLED_BY_PARENT = (signal.SIGINT, signal.SIGTERM)
"""Signals that a worker ignores, because its parent handles them and ends the worker."""
_WATCH_SECONDS = 0.2
"""Seconds between a worker's checks that its parent still lives."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from {module} import serve; serve(*map(int, sys.argv[2:]))"
)
CLOSING_SECONDS = 5.0
"""How long a worker may take to close its environments before it is killed."""

# Shared memory is one anonymous file, whose descriptor the workers inherit. It has no name, so that nothing is left
# behind, whichever process is killed.

Layout = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of every shared array."""


def layout_of(observation: spaces.Box, action: "ActionSpace", count: int, workers: int, health: bool = False) -> Layout:
    """The arrays that a vector environment with ``count`` rows shares with its workers; health: whether that is one."""
    return {
        "observations": ((count, *observation.shape), np.dtype(observation.dtype).str),
        "actions": ((count, *(action.shape or ())), np.dtype(action.dtype).str),
        "rewards": ((count,), "<f8"),
        "terminated": ((count,), "|b1"),
        "truncated": ((count,), "|b1"),
        "beats": ((workers,), "<i8"),
        **({"health": ((count,), "<f4")} if health else {}),
    }


def _places(layout: Layout) -> tuple[dict[str, int], int]:
    """The offset of every array, aligned to cache lines of 64 bytes, and the size of all arrays, in bytes."""
    offsets, end = {}, 0
    for name, (shape, dtype) in layout.items():
        offsets[name] = end
        end += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64
    return offsets, max(end, 64)


def anonymous_file(layout: Layout) -> int:
    """The file descriptor of new memory for the arrays of a layout."""
    size = _places(layout)[1]
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("worldmodels")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd


def map_arrays(fd: int, layout: Layout) -> dict[str, np.ndarray]:
    """The arrays in the memory of ``fd``; they stay valid when the descriptor is closed."""
    offsets, size = _places(layout)
    memory = mmap.mmap(fd, size)
    return {
        name: np.ndarray(shape, dtype, buffer=memory, offset=offsets[name]) for name, (shape, dtype) in layout.items()
    }


class Worker:
    """A process and the connection to it.

    It is a plain subprocess: a process of multiprocessing would run the caller's main script again, which imports
    torch, and would require the ``if __name__ == "__main__"`` guard there.
    """

    def __init__(self, fd: int, module: str = __name__) -> None:
        """fd: the shared memory; module: whose function ``serve`` the process runs."""
        self.connection, theirs = Pipe()
        arguments = [json.dumps(sys.path), str(theirs.fileno()), str(fd), str(os.getpid())]
        # The child inherits the blocked signals, so that Ctrl-C cannot kill it before it ignores them itself.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_BY_PARENT)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(module=module), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=2,  # stderr: what environments print must not mix with the output of a command
                env=headless(),
                pass_fds=(theirs.fileno(), fd),
                start_new_session=True,  # so that processes started by environments can be ended with the worker
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            theirs.close()
        self.pid = self._process.pid

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a command. If the worker has died, that is noticed while waiting for its answer."""
        with contextlib.suppress(OSError):
            self.connection.send(message)

    def exit_reason(self) -> str:
        """How the process, whose connection has closed, ended: "was killed by ..." or "exited with code ..."."""
        try:
            code = self._process.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def end(self, patience: float) -> None:
        """Give the process, whose connection is closed, ``patience`` seconds to end by itself; then kill it."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The whole process group: a simulator may be a separate process that outlives a killed worker.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


_AnyWorker = TypeVar("_AnyWorker", bound=Worker)


def end_workers(workers: list[_AnyWorker], patience: float) -> None:
    """End and forget all workers; those still there after ``patience`` seconds are killed."""
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + patience
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
    workers.clear()


class Activity:
    """What a process does with environments, for its parent and for the thread that watches over it.

    envs: those that exist now, by row; in_environment: whether one of them is making, resetting or stepping; beat:
    called when one has finished, so that the parent sees that this process does not hang.
    """

    def __init__(self, beat: Callable[[], None] = lambda: None) -> None:
        self.envs: dict[int, gymnasium.Env[Any, Any]] = {}
        self.in_environment = False
        self.beat = beat


class Copies:
    """Copies of one Gymnasium environment, each for a row of shared arrays (:func:`layout_of`), stepped in turn."""

    def __init__(self, env_id: str, options: Mapping[str, Any], activity: Activity | None = None) -> None:
        self._make = functools.partial(gymnasium.make, env_id, **options)
        self._activity = activity or Activity()
        self._envs = self._activity.envs

    def make(self, rows: Iterable[int]) -> None:
        """Make the copies of rows that have none."""
        with self._in_environment():
            for row in rows:
                if row not in self._envs:
                    self._envs[row] = self._make()
                    self._activity.beat()

    def reset(self, seeds: Iterable[tuple[int, int]], arrays: Mapping[str, np.ndarray]) -> None:
        """Reset rows, given with their seeds, and write their observations into the arrays."""
        with self._in_environment():
            for row, seed in seeds:
                observation, info = self._envs[row].reset(seed=seed)
                _write(arrays["observations"], row, observation)
                _write_health(arrays, row, info)
                self._activity.beat()

    def step(self, rows: Iterable[int], arrays: Mapping[str, np.ndarray]) -> None:
        """Step rows with the actions in the arrays, and write what they return into the arrays."""
        with self._in_environment():
            for row in rows:
                observation, reward, end, cut, info = self._envs[row].step(arrays["actions"][row].copy())
                _write(arrays["observations"], row, observation)
                _write_health(arrays, row, info)
                arrays["rewards"][row] = reward
                arrays["terminated"][row], arrays["truncated"][row] = end, cut
                self._activity.beat()

    def close(self) -> None:
        """Close all copies."""
        while self._envs:
            self._envs.popitem()[1].close()

    @contextlib.contextmanager
    def _in_environment(self) -> Iterator[None]:
        self._activity.in_environment = True
        try:
            yield
        finally:
            self._activity.in_environment = False


def begin_worker(connection_fd: int, memory_fd: int, parent: int, activity: Activity) -> Connection:
    """Prepare this process to serve ``parent`` and to end with it; returns the connection to it."""
    for number in HANDLED_BY_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_BY_PARENT)
    # Processes started by an environment must not hold the connection open when this process dies.
    os.set_inheritable(connection_fd, False)
    os.set_inheritable(memory_fd, False)
    threading.Thread(target=_end_with_parent, args=(parent, activity.envs), daemon=True).start()
    return Connection(connection_fd)


def collect_less_garbage() -> None:
    """Let Python's garbage collector run less often, once everything that stays has been made."""
    gc.freeze()
    gc.set_threshold(_GARBAGE, 20, 20)


def serve(connection_fd: int, memory_fd: int, parent: int) -> None:
    """The main function of a worker: make environments, answer commands, end when the parent does."""
    activity = Activity()
    connection = begin_worker(connection_fd, memory_fd, parent, activity)
    commands: dict[str, Callable[..., None]] = {}

    def make(env_id: str, options: Mapping[str, Any], rows: list[int], layout: Layout, index: int) -> None:
        shared = map_arrays(memory_fd, layout)
        activity.beat = functools.partial(count_beat, shared["beats"], index)
        copies = Copies(env_id, options, activity)
        copies.make(rows)
        collect_less_garbage()
        commands.update(
            reset=functools.partial(copies.reset, arrays=shared), step=functools.partial(copies.step, arrays=shared)
        )

    with contextlib.suppress(EOFError, OSError):
        while True:
            command, rest = connection.recv()
            try:
                if command == "make":
                    make(*rest)
                else:
                    commands[command](rest)
            except Exception as error:
                text = f"{type(error).__name__}: {one_line(error)}"
                connection.send(("make failed" if command == "make" else "raised", text))
            else:
                connection.send(("done", ""))
    for env in activity.envs.values():
        env.close()


def count_beat(beats: np.ndarray, index: int) -> None:
    """Add one to the number by which the parent sees that this process does not hang."""
    beats[index] += 1


def _write(observations: np.ndarray, row: int, observation: Any) -> None:
    if np.shape(observation) != observations.shape[1:]:
        raise ValueError(f"expected observations of shape {observations.shape[1:]}, got {np.shape(observation)}")
    np.copyto(observations[row], observation, casting="same_kind")


def _write_health(arrays: Mapping[str, np.ndarray], row: int, info: Mapping[str, Any]) -> None:
    """Write the health that an environment's info tells, NaN if it does not, where there is an array for it."""
    if "health" in arrays:
        arrays["health"][row] = info.get("health", np.nan)


def _end_with_parent(parent: int, envs: Mapping[int, "gymnasium.Env[Any, Any]"]) -> None:
    """Kill this process soon after its parent has died, even in the middle of a step that hangs.

    Environments that leave files behind when they are killed have a method ``when_orphaned``, which is called first.
    """
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    _kill_others_in_group()
    for env in list(envs.values()):
        clean_up = getattr(env.unwrapped, "when_orphaned", None)
        if clean_up is not None:
            with contextlib.suppress(Exception):
                clean_up()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _kill_others_in_group() -> None:
    """Kill the other processes of this process group, so that they write no more files (where /proc lists them)."""
    if os.getpgrp() != os.getpid() or not os.path.isdir("/proc"):
        return
    for name in os.listdir("/proc"):
        with contextlib.suppress(ValueError, OSError):
            if int(name) != os.getpid() and os.getpgid(int(name)) == os.getpgrp():
                os.kill(int(name), signal.SIGKILL)
    time.sleep(_WATCH_SECONDS)


def one_line(error: BaseException) -> str:
    """The error's text without line breaks, or its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
