"""Environments that outlive one round of episodes."""

from collections.abc import Callable
from typing import TypeVar

from gymnasium.vector import VectorEnv

from worldmodels.tasks import Task
from worldmodels.workers.recover import WorkerDied, retrying

T = TypeVar("T")


class Kept:
    """The environments that were made last; worker processes, and games even more, take seconds to start.

    They end with :meth:`close`, or when this object is dropped.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._made: tuple[int, str] | None = None
        self._env: VectorEnv | None = None

    def retrying(self, count: int, backend: str, play: Callable[[VectorEnv], T]) -> T:
        """``play(env)`` with ``count`` environments, which it must reset; repeated with new ones when a worker dies."""

        def work() -> T:
            try:
                return play(self._of(count, backend))
            except WorkerDied:
                self.close()
                raise

        return retrying(work)

    def _of(self, count: int, backend: str) -> VectorEnv:
        if self._env is None or self._made != (count, backend):
            self.close()
            self._env, self._made = self.task.make(count, backend), (count, backend)
        return self._env

    def close(self) -> None:
        """End them."""
        if self._env is not None:
            self._env.close()
            self._env = None
