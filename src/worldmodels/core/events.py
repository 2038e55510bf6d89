"""Progress events and their listeners.

Work reports its progress with :func:`emit`. A listener is a function that takes one event, such as the terminal or a
web page. Events go to the terminal if no other listener is registered.
"""

import contextlib
from collections.abc import Callable, Iterator

from worldmodels.core.event_kinds import Advanced, Ended, Event, Measured, Message, Started
from worldmodels.core.terminal import terminal

__all__ = [
    "Advanced",
    "Ended",
    "Event",
    "Listener",
    "Measured",
    "Message",
    "Started",
    "emit",
    "listening",
    "say",
]

Listener = Callable[[Event], None]

_listeners: list[Listener] = []


def emit(event: Event) -> None:
    """Send an event to every listener, or to the terminal if there is none."""
    if not _listeners:
        terminal(event)
    for listener in list(_listeners):
        listener(event)


@contextlib.contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Inside the block, send every event to these listeners instead of the terminal (which may be one of them)."""
    _listeners.extend(listeners)
    try:
        yield
    finally:
        for listener in listeners:
            _listeners.remove(listener)


def say(text: str) -> None:
    """Show the user a line of text."""
    emit(Message(text))
