"""The pace of a window: the world keeps its speed as long as the machine can, and the window says when it cannot."""

import time
from collections import deque
from collections.abc import Callable

_WINDOW = 1.5
"""Seconds over which the speed is measured."""
_SLOW = 0.95
"""The part of the wanted speed below which it is said."""
_LATE = 0.2
"""Seconds of delay after which the world goes on from where it is, instead of hurrying to catch up."""


class Pace:
    """Decides when the next step is due and whether there is time to draw; rate: steps per second."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._now = rate, now
        self._due = now()
        self._steps: deque[float] = deque([self._due])
        self._drawn = True
        self.note = ""
        """At which speed the world runs if it is too slow, else empty."""

    def step(self) -> None:
        """The world has made a step."""
        now = self._now()
        self._due += 1 / self._rate
        if now - self._due > _LATE:
            self._due = now
        self._steps.append(now)
        while now - self._steps[0] > _WINDOW and len(self._steps) > 2:
            self._steps.popleft()
        seconds = now - self._steps[0]
        if seconds >= _WINDOW / 2:
            reached = (len(self._steps) - 1) / seconds
            share = reached / self._rate
            slow = share < _SLOW
            self.note = f"{reached:.0f} of {self._rate:.0f} frames/s: {share:.2f} x real time" if slow else ""

    def draws(self) -> bool:
        """Whether to draw this step: always while there is time, every other step while the world is late."""
        self._drawn = not self._drawn or self.left() > -1 / self._rate
        return self._drawn

    def left(self) -> float:
        """Seconds until the next step is due; negative if it is late."""
        return self._due - self._now()
