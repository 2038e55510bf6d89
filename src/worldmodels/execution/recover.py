"""Repeating work that was lost because a worker process died."""

from collections.abc import Callable
from typing import TypeVar

from worldmodels.core.errors import UserError
from worldmodels.core.events import say

T = TypeVar("T")


class WorkerDied(UserError):
    """A worker process died, hung, or its environment raised; the next ``reset`` starts fresh workers."""


ATTEMPTS = 3
"""How often work is tried whose worker dies, in all."""


def retrying(work: Callable[[], T], attempts: int = ATTEMPTS) -> T:
    """``work()``, repeated when a worker dies, at most ``attempts`` times in all.

    ``work`` must start with ``reset`` and its own seeds, so that a repetition has the same result. Raises
    :class:`UserError` after the last attempt; exceptions other than :class:`WorkerDied` are not caught.
    """
    for attempt in range(1, attempts):
        try:
            return work()
        except WorkerDied as death:
            say(starting_again(death, attempt, attempts))
    try:
        return work()
    except WorkerDied as death:
        raise gave_up(death, attempts) from death


def starting_again(death: WorkerDied | str, attempt: int, attempts: int = ATTEMPTS) -> str:
    """The warning after attempt number ``attempt``."""
    return f"warning: {death}; starting again (attempt {attempt + 1} of {attempts})"


def gave_up(death: WorkerDied | str, attempts: int = ATTEMPTS) -> UserError:
    """The error after the last attempt."""
    times = "once" if attempts == 1 else f"{attempts} times"
    return UserError(f"gave up after trying {times}, because workers kept failing: {death}")
