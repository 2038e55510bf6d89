"""Settings of C."""

from dataclasses import dataclass

from worldmodels.core.settings import choice


@dataclass(frozen=True)
class ControllerConfig:
    """C: one linear map from what it sees to the controls."""

    inputs: tuple[str, ...] = choice((), "z", "h", "c")
    """What it sees: z of the frame, h and c, the hidden and the cell state of M; none means what suits the task."""
