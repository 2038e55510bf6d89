"""Executors compute what a run needs: fitness, recorded episodes and scores. A run makes one executor.

Work is divided into chunks. A chunk is a function that gets the environments that a worker keeps. Its shape and its
seeds are fixed, so that its result depends neither on the worker nor on how often it is repeated.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from worldmodels.core.registry import Registry
from worldmodels.execution.environments import Environments
from worldmodels.execution.recover import WorkerDied, retrying

T = TypeVar("T")
AUTO = "auto"
"""The name with which :func:`make_executor` chooses."""
Chunk = Callable[[Environments], T]
"""A piece of work. It resets the environments that it uses, so that it can be repeated."""


class Executor(Protocol):
    """Runs chunks of work, in this process or elsewhere."""

    def divide(self, episodes: int, together: int) -> int:
        """The number of chunks into which so many episodes should be divided, about equally.

        together: episodes that may be played together in one environment. Results depend on the division, because
        networks round differently in batches of another size; so it must not depend on what is busy or fast.
        """
        ...

    def map(self, chunks: Iterable[Chunk[T]]) -> Iterator[T]:
        """The results of the chunks, in the order of the chunks.

        A chunk whose worker dies is repeated with new environments.
        """
        ...

    def release(self) -> None:
        """Close the environments that are kept for further chunks. Call it if no such chunks follow soon."""
        ...

    def close(self) -> None:
        """End the workers and their environments; no chunk may follow."""
        ...


class LocalExecutor:
    """Runs one chunk after another in this process, whose environments use all cores; for agents on a GPU."""

    def __init__(self) -> None:
        self._environments = Environments()

    def divide(self, episodes: int, together: int) -> int:
        """As few as possible: large batches suit a GPU."""
        return -(-episodes // together)

    def map(self, chunks: Iterable[Chunk[T]]) -> Iterator[T]:
        """The results of the chunks, in the order of the chunks."""
        for chunk in chunks:
            yield self._result_of(chunk)

    def _result_of(self, chunk: Chunk[T]) -> T:
        def work() -> T:
            try:
                return chunk(self._environments)
            except WorkerDied:
                self._environments.close()
                raise

        return retrying(work)

    def release(self) -> None:
        """Close the environments; new ones are made when a chunk needs them."""
        self._environments.close()

    def close(self) -> None:
        """Close the environments."""
        self.release()


EXECUTORS: Registry[Callable[[], Executor]] = Registry(
    "executor",
    {
        "workers": "worldmodels.execution.workers:WorkersExecutor",
        "local": "worldmodels.execution.executor:LocalExecutor",
    },
    "worldmodels.executors",
)
"""Every executor by name; other packages add theirs through the entry point group "worldmodels.executors"."""


def make_executor(name: str = AUTO, device: str = "cpu") -> Executor:
    """A new executor of the kind ``name``. Raises :class:`UserError` for an unknown name.

    auto: "workers" for agents on a ``device`` "cpu", "local" for those on "cuda", since processes should not share it.
    """
    if name == AUTO:
        name = "local" if device == "cuda" else "workers"
    return EXECUTORS.get(name)()
