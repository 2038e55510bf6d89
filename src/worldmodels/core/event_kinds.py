"""What happens during work: the kinds of events (``events.py`` tells them to whoever listens)."""

from collections.abc import Mapping
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
