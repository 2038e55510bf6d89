"""Shows events on stderr: a bar with rate and time left on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
import unicodedata
from typing import TYPE_CHECKING, Any

from worldmodels.core.event_kinds import Advanced, Ended, Event, Message, Started

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_SECONDS = 15.0
"""Seconds between plain lines if stderr is not a terminal."""
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, of those that change the order of text, and of line separators."""


def printable(text: str, keep: str = "") -> str:
    """The text with control characters, except those in ``keep``, written as escapes such as ``\\x1b``.

    Text out of a file could otherwise recolour, rewrite or reorder what the terminal shows.
    """
    return "".join(
        ascii(one)[1:-1] if unicodedata.category(one) in _UNPRINTABLE and one not in keep else one for one in text
    )


def console(**options: Any) -> "Console":
    """A console of rich for tables, which shows every string as it is: :func:`printable`, and without markup."""
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        def render_str(self, text: str, **named: Any) -> Text:
            return super().render_str(printable(text, keep="\n"), **named)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # whose exit status the command line knows; rich's own is that of an error

    return PlainConsole(markup=False, emoji=False, highlight=False, **options)


def duration(seconds: float) -> str:
    """Seconds in short form: 42s, 3m10s, 1h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def show(text: str) -> None:
    """Print a line of text on stderr, if that is open and somebody reads it."""
    # Work does not stop because nobody reads its progress: the reader of a pipe may end, stderr may be closed.
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(printable(text), file=sys.stderr, flush=True)


class Terminal:
    """A listener that shows messages and progress to the user."""

    def __init__(self) -> None:
        self._bars: dict[str, tuple[Any, Any]] = {}
        self._printed: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Show one event; :class:`Measured` is for tables and plots, and is not shown."""
        if isinstance(event, Message):
            show(event.text)
        elif isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Advanced):
            self._advance(event)
        elif isinstance(event, Ended):
            self._end(event)

    def _start(self, event: Started) -> None:
        self._printed[event.what] = time.monotonic()
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            name, numbers = (
                TextColumn(text, markup=False) for text in ("{task.description:<10}", "{task.fields[line]}")
            )
            bar = Progress(name, BarColumn(), numbers, console=console(stderr=True), refresh_per_second=4)
            bar.start()
            task = bar.add_task(printable(event.what), total=event.total, completed=event.done, line="")
            self._bars[event.what] = bar, task
        elif event.done:
            show(f"{event.what}: continuing at {event.done:,} of {event.total:,} {event.unit}")

    def _advance(self, event: Advanced) -> None:
        now = time.monotonic()
        if event.what in self._bars:
            bar, task = self._bars[event.what]
            bar.update(task, completed=event.done, line=printable(line(event)))
        elif now - self._printed.get(event.what, now) > _PLAIN_SECONDS:
            self._printed[event.what] = now
            show(f"{event.what}: {line(event)}")

    def _end(self, event: Ended) -> None:
        if event.what in self._bars:
            bar, _ = self._bars.pop(event.what)
            bar.stop()
        elif event.completed:
            show(f"{event.what}: {event.done:,} {event.unit} in {duration(event.seconds)}{_shown(event)}")


def line(event: Advanced) -> str:
    """Units finished, rate, time left and numbers in one line."""
    rate = f"{event.rate:,.0f}" if event.rate >= 10 else f"{event.rate:.2f}"
    left = duration(event.seconds_left)
    return f"{event.done:,}/{event.total:,} {event.unit}, {rate}/s, {left} left{_shown(event)}"


def _shown(event: Advanced | Ended) -> str:
    return "".join(f", {name} {value:,.4g}" for name, value in event.numbers.items())


terminal = Terminal()
"""The listener that is used if no other is registered."""
