"""The executor that computes chunks side by side, in one worker process per core.

Every process simulates, encodes and acts for its own rows with one thread. Nothing is exchanged and nobody waits within
a step, so that all cores are busy until the last chunks, also where other programs take some of their time.
"""

import collections
import os
import time
import weakref
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any, TypeVar

from worldmodels.core import interrupt
from worldmodels.core.cores import usable_cores
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.execution.chunk_packing import Packed, Packer
from worldmodels.execution.chunk_worker import LAYOUT
from worldmodels.execution.executor import Chunk, LocalExecutor
from worldmodels.execution.process_worker import CLOSING_SECONDS, Worker, anonymous_file, end_workers, map_arrays
from worldmodels.execution.recover import ATTEMPTS, gave_up, starting_again

T = TypeVar("T")
_CHUNKS = 8
"""Chunks into which work is divided, if it is not too little: few enough for large batches, enough for 8 cores. Fewer
are 4, 2 or 1, so that 2 and 4 cores end at the same time."""
_SMALLEST, _LARGEST = 12, 32
"""Episodes of a chunk: fewer make the networks slow, and more are lost when a process dies."""
_LOOK_SECONDS = 0.2
"""Seconds between two looks at signals and at workers that may hang."""


class WorkersExecutor:
    """Computes chunks in worker processes, one per usable core; a single chunk in this process.

    Workers start when they are needed. One that dies, or whose environment hangs for ``timeout`` seconds, is replaced,
    and its chunk repeated. count: the number of workers (None: one per usable core).
    """

    def __init__(self, count: int | None = None, timeout: float = 60.0) -> None:
        self._count, self._timeout = count or usable_cores(), timeout
        self._here = LocalExecutor()
        self._workers: list[_ChunkWorker] = []
        self._finalizer = weakref.finalize(self, _dispose, self._workers, os.getpid())

    def divide(self, episodes: int, together: int) -> int:
        """The number of chunks for so many episodes; it does not depend on the number of workers."""
        chunks = min(_CHUNKS, -(-episodes // _SMALLEST))
        while chunks & (chunks - 1):  # not a power of two
            chunks -= 1
        return max(-(-episodes // min(together, _LARGEST)), chunks)

    def map(self, chunks: Iterable[Chunk[T]]) -> Iterator[T]:
        """The results of the chunks, in the order of the chunks."""
        work = list(chunks)
        if len(work) < 2 or self._count < 2:
            yield from self._here.map(work)
            return
        self._here.release()
        try:
            yield from self._map(work)
        except BaseException:  # also if the caller wants no more results: answers must not be taken for later ones
            end_workers(self._workers, patience=0.0)
            raise

    def release(self) -> None:
        """End the workers; new ones start when chunks need them."""
        self._here.release()
        end_workers(self._workers, CLOSING_SECONDS)

    def close(self) -> None:
        """End the workers."""
        self.release()

    def _map(self, work: list[Chunk[T]]) -> Iterator[T]:
        packer = Packer()
        packed = [packer.pack(chunk) for chunk in work]
        waiting, attempts = collections.deque(range(len(work))), [0] * len(work)
        busy: dict[_ChunkWorker, int] = {}
        results: dict[int, Any] = {}
        for index in range(len(work)):
            while index not in results:
                interrupt.check()
                self._start(min(self._count, len(busy) + len(waiting)))
                for worker in [worker for worker in self._workers if worker not in busy]:
                    if waiting:
                        busy[worker] = waiting.popleft()
                        worker.ask(packed[busy[worker]], packer.parts)
                answering = wait([worker.connection for worker in busy], _LOOK_SECONDS)
                for worker in list(busy):
                    if worker.connection in answering:
                        verdict, content = worker.answer()
                    elif worker.hangs(self._timeout):
                        verdict, content = "died", f"worker process {worker.pid} gave no answer in {self._timeout:g} s"
                    else:
                        continue
                    done = busy.pop(worker)
                    if verdict == "done":
                        results[done] = content
                    else:
                        attempts[done] += 1
                        self._failed(worker, verdict, content, attempts[done])
                        waiting.appendleft(done)
            yield results.pop(index)

    def _failed(self, worker: "_ChunkWorker", verdict: str, content: Any, attempts: int) -> None:
        """Raise what a chunk raised, or replace the worker, unless the chunk has been tried often enough."""
        if verdict == "user error":
            raise UserError(content)
        if verdict == "raised":
            raise content
        self._workers.remove(worker)
        end_workers([worker], patience=0.0)
        if attempts == ATTEMPTS:
            raise gave_up(content)
        say(starting_again(content, attempts))

    def _start(self, count: int) -> None:
        while len(self._workers) < count:
            self._workers.append(_ChunkWorker())


class _ChunkWorker(Worker):
    """A worker process, and what it knows."""

    def __init__(self) -> None:
        fd = anonymous_file(LAYOUT)
        try:
            super().__init__(fd, "worldmodels.execution.chunk_worker")
            self._beats = map_arrays(fd, LAYOUT)["beats"]
        finally:
            os.close(fd)
        self._parts: set[str] = set()
        self._last = -1, time.monotonic()

    def ask(self, chunk: Packed, parts: dict[str, Packed]) -> None:
        """Send a packed chunk, with the parts that this worker does not have yet."""
        missing = {digest: part.to_send() for digest, part in parts.items() if digest not in self._parts}
        self._parts = set(parts)
        self._last = -1, time.monotonic()
        self.send((missing, self._parts, chunk.to_send()))

    def answer(self) -> tuple[str, Any]:
        """The verdict and the content that have come; ("died", why) if the process has ended."""
        try:
            verdict, content = self.connection.recv()
        except (EOFError, OSError):
            return "died", f"worker process {self.pid} {self.exit_reason()}"
        return verdict, f"in worker process {self.pid}, {content}" if verdict == "died" else content

    def hangs(self, timeout: float) -> bool:
        """Whether no beat has come for ``timeout`` seconds."""
        beat, now = int(self._beats[0]), time.monotonic()
        if beat != self._last[0]:
            self._last = beat, now
        return now - self._last[1] > timeout


def _dispose(workers: list[_ChunkWorker], owner: int) -> None:
    if os.getpid() == owner:  # not in a process that was forked from the owner
        end_workers(workers, CLOSING_SECONDS)
