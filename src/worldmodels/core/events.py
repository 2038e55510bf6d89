"""What happens during work, for whoever wants to follow it: the terminal, TensorBoard, a table, a page.

Work says what it does by :func:`emit`; listeners are functions of one event. Without any other, what is for people goes
to the terminal.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """One line for people."""

    text: str


@dataclass(frozen=True)
class Started:
    """Work of ``total`` units has begun, of which ``done`` were finished by an earlier process."""

    what: str
    total: int
    unit: str
    done: int


@dataclass(frozen=True)
class Advanced:
    """Work has come to ``done`` of ``total`` units. rate: units per second; seconds_left: an estimate."""

    what: str
    done: int
    total: int
    unit: str
    rate: float
    seconds_left: float
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """Work has stopped; ``completed`` says whether without an error. seconds: those of this process."""

    what: str
    done: int
    unit: str
    seconds: float
    completed: bool
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Numbers of one step of a stage, as they are kept in its ``metrics.csv``; ``stage``: the name of its folder."""

    stage: str
    step: int
    numbers: Mapping[str, float]


Event = Message | Started | Advanced | Ended | Measured
Listener = Callable[[Event], None]

_listeners: list[Listener] = []


def emit(event: Event) -> None:
    """Tell every listener, or the terminal if there is none."""
    if not _listeners:
        from worldmodels.core.terminal import terminal

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
