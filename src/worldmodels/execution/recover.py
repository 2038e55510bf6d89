"""Repeating work that was lost because a worker process died."""

from collections.abc import Callable
from typing import TypeVar

from worldmodels.core.errors import UserError
from worldmodels.core.events import say

T = TypeVar("T")


class WorkerDied(UserError):
    """A worker process died, hung, or its environment raised; the next ``reset`` starts fresh workers."""


def retrying(work: Callable[[], T], attempts: int = 3) -> T:
    """``work()``, repeated when a worker dies, at most ``attempts`` times in all.

    ``work`` must start with ``reset`` and its own seeds, so that a repetition has the same result. Raises
    :class:`UserError` after the last attempt; exceptions other than :class:`WorkerDied` are not caught.
    """
    for attempt in range(1, attempts):
        try:
            return work()
        except WorkerDied as death:
            say(f"warning: {death}; starting again (attempt {attempt + 1} of {attempts})")
    try:
        return work()
    except WorkerDied as death:
        times = "once" if attempts == 1 else f"{attempts} times"
        raise UserError(f"gave up after trying {times}, because workers kept failing: {death}") from death
