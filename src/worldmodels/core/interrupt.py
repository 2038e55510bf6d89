"""SIGINT (Ctrl-C) and SIGTERM: the current step is finished and saved; a second signal ends the process at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

_received: int | None = None


class Interrupted(Exception):
    """Raised between steps after SIGINT or SIGTERM; ``exit_code`` is 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    if _received is not None:
        os._exit(128 + number)
    _received = number


@contextlib.contextmanager
def graceful() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM only request a stop: the work stops at its next :func:`check`.

    After a signal, the handlers stay when the block ends, because the process is about to end: another signal ends it
    at once, with an exit status that says which.
    """
    global _received
    _received = None
    previous = {number: signal.signal(number, _handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if _received is None:
            for number, handler in previous.items():
                signal.signal(number, handler)


def requested() -> bool:
    """Whether a signal has requested a stop."""
    return _received is not None


def check() -> None:
    """Raise :class:`Interrupted` if a signal has requested a stop."""
    if _received is not None:
        raise Interrupted(_received)
