"""Progress of long work, sent to listeners as events (see ``events.py``)."""

import time
from types import TracebackType
from typing import Self

from worldmodels.core.events import Advanced, Ended, Started, emit


class Progress:
    """Reports progress: ``with Progress(total, "vision", "steps", done) as bar: bar.advance(1, loss=3.2)``.

    total: units of work in all; what: name of the work; unit: name of its units; done: units that an earlier process
    finished, which do not count for the rate.
    """

    def __init__(self, total: int, what: str, unit: str, done: int = 0) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done = self._before = done
        self._started = time.monotonic()
        self._numbers: dict[str, float] = {}

    def __enter__(self) -> Self:
        emit(Started(self.what, self.total, self.unit, self.done))
        return self

    def advance(self, amount: int = 1, **numbers: float) -> None:
        """Report ``amount`` more units as finished; ``numbers`` are shown beside the rate."""
        self.done += amount
        self._numbers.update(numbers)
        rate = self.rate
        left = (self.total - self.done) / rate if self.done > self._before else 0.0
        emit(Advanced(self.what, self.done, self.total, self.unit, rate, left, dict(self._numbers)))

    @property
    def rate(self) -> float:
        """Units per second in this process."""
        return (self.done - self._before) / max(time.monotonic() - self._started, 1e-9)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._started
        emit(Ended(self.what, self.done, self.unit, seconds, kind is None, dict(self._numbers)))
