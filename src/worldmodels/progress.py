"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere. Always on stderr."""

import sys
import time
from types import TracebackType
from typing import Any, Self

_PLAIN_SECONDS = 15.0
"""Seconds between plain lines where no terminal is attached."""


def say(text: str) -> None:
    """One line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42s, 3m10s, 1h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """``with Progress(total, "vision", "steps", done) as bar: bar.advance(1, loss=3.2)``.

    total: amount of work; done: what an earlier process finished (it does not count for the rate).
    """

    def __init__(self, total: int, what: str, unit: str, done: int = 0) -> None:
        self.total, self.what, self.unit = total, what, unit
        self.done = self._before = done
        self._started = self._printed = time.monotonic()
        self._bar: Any = None
        self._numbers: dict[str, float] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            columns = TextColumn("{task.description:<10}"), BarColumn(), TextColumn("{task.fields[line]}")
            self._bar = RichProgress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, line="")
        elif self._before:
            say(f"{self.what}: continuing at {self._before:,} of {self.total:,} {self.unit}")
        return self

    def advance(self, amount: int = 1, **numbers: float) -> None:
        """Count ``amount`` more units; ``numbers`` are shown beside the rate."""
        self.done += amount
        self._numbers.update(numbers)
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, line=self.line())
        elif now - self._printed > _PLAIN_SECONDS:
            self._printed = now
            say(f"{self.what}: {self.line()}")

    @property
    def rate(self) -> float:
        """Units per second of this process."""
        return (self.done - self._before) / max(time.monotonic() - self._started, 1e-9)

    def line(self) -> str:
        """Amount, rate, time left and numbers in one line."""
        left = (self.total - self.done) / self.rate if self.done > self._before else 0.0
        rate = f"{self.rate:,.0f}" if self.rate >= 10 else f"{self.rate:.2f}"
        numbers = "".join(f", {name} {value:,.4g}" for name, value in self._numbers.items())
        return f"{self.done:,}/{self.total:,} {self.unit}, {rate}/s, {duration(left)} left{numbers}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            seconds = time.monotonic() - self._started
            numbers = "".join(f", {name} {value:,.4g}" for name, value in self._numbers.items())
            say(f"{self.what}: {self.done:,} {self.unit} in {duration(seconds)}{numbers}")
