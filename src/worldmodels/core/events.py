"""What happens during work, for whoever wants to follow it: the terminal, TensorBoard, a table, a page.

Work says what it does by :func:`emit`; listeners are functions of one event. Without any other, what is for people goes
to the terminal.
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
    """Tell every listener, or the terminal if there is none."""
    if not _listeners:
        terminal(event)
    for listener in list(_listeners):
        listener(event)


@contextlib.contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Inside, these listeners are told of every event, instead of the terminal (which may be one of them)."""
    _listeners.extend(listeners)
    try:
        yield
    finally:
        for listener in listeners:
            _listeners.remove(listener)


def say(text: str) -> None:
    """One line for people."""
    emit(Message(text))
