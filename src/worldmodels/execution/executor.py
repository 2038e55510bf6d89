"""Who does the work: fitness, episodes and scores are asked of one executor, which a run makes once.

Work comes in chunks. A chunk is a function of the environments that its worker keeps, of fixed shape and with seeds of
its own: its result is the same whoever does it, and however often.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from worldmodels.core.registry import Registry
from worldmodels.execution.environments import Environments
from worldmodels.execution.recover import WorkerDied, retrying

T = TypeVar("T")
Chunk = Callable[[Environments], T]
"""A piece of work. It resets the environments that it takes, so that it can be repeated."""


class Executor(Protocol):
    """Does chunks of work, somewhere."""

    def map(self, chunks: Iterable[Chunk[T]]) -> Iterator[T]:
        """The results of the chunks, in their order. A chunk whose worker dies is repeated, with new environments."""
        ...

    def close(self) -> None:
        """End what is kept."""
        ...


class LocalExecutor:
    """Does one chunk after the other in this process; its environments use every core."""

    def __init__(self) -> None:
        self._environments = Environments()

    def map(self, chunks: Iterable[Chunk[T]]) -> Iterator[T]:
        """The results of the chunks, in their order."""
        for chunk in chunks:
            yield self._done(chunk)

    def _done(self, chunk: Chunk[T]) -> T:
        def work() -> T:
            try:
                return chunk(self._environments)
            except WorkerDied:
                self._environments.close()
                raise

        return retrying(work)

    def close(self) -> None:
        """End the environments."""
        self._environments.close()


EXECUTORS: Registry[Callable[[], Executor]] = Registry(
    "executor", {"local": "worldmodels.execution.executor:LocalExecutor"}, "worldmodels.executors"
)
"""Every executor by name; other packages add theirs by the entry point group "worldmodels.executors"."""


def make_executor(name: str = "local") -> Executor:
    """The executor called ``name``; an unknown name is a :class:`UserError`."""
    return EXECUTORS.get(name)()
