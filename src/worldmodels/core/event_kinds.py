"""The kinds of progress events, which ``events.py`` sends to listeners."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """A line of text for the user."""

    text: str


@dataclass(frozen=True)
class Started:
    """Work has started. what: its name; total: number of units; done: units that an earlier process finished."""

    what: str
    total: int
    unit: str
    done: int


@dataclass(frozen=True)
class Advanced:
    """``done`` of ``total`` units are finished. rate: units per second; numbers: current values to show, by name."""

    what: str
    done: int
    total: int
    unit: str
    rate: float
    seconds_left: float
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """Work has stopped. completed: whether it ended without an error; seconds: time spent in this process."""

    what: str
    done: int
    unit: str
    seconds: float
    completed: bool
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """A row that was added to a ``metrics.csv``; stage: the name of the folder that holds the file."""

    stage: str
    step: int
    numbers: Mapping[str, float]


Event = Message | Started | Advanced | Ended | Measured
