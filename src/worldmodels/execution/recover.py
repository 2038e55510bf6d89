"""Work that survives the death of a worker process: what was lost is simply done again."""

import sys
from collections.abc import Callable
from typing import TypeVar

from worldmodels.core.errors import UserError

T = TypeVar("T")


class WorkerDied(UserError):
    """A worker process died, hung, or its environment raised; the next ``reset`` starts fresh workers."""


def retrying(work: Callable[[], T], attempts: int = 3) -> T:
    """``work()``, repeated when a worker dies, at most ``attempts`` times in all.

    ``work`` must start from ``reset`` with its own seeds: then a repetition gives what the first try would
    have. Raises UserError after the last attempt; other exceptions pass through at once.
    """
    for attempt in range(1, attempts):
        try:
            return work()
        except WorkerDied as death:
            print(f"warning: {death}; starting again (attempt {attempt + 1} of {attempts})", file=sys.stderr)
    try:
        return work()
    except WorkerDied as death:
        times = "once" if attempts == 1 else f"{attempts} times"
        raise UserError(f"gave up after trying {times}, because workers kept failing: {death}") from death
