"""Settings of dreams."""

from dataclasses import dataclass

from worldmodels.core.settings import choice, number


@dataclass(frozen=True)
class DreamConfig:
    """The dreams in which C is evolved."""

    temperature: float = number(1.15, above=0)
    """Uncertainty of the dream: logits are divided by it, noise is multiplied by its square root."""
    termination: str = choice("sample", "sample", "threshold")
    """How a dream ends: sample (as often as ends come) or threshold (where the weighted end head exceeds 0.5)."""
    start_steps: tuple[int, ...] = number((), low=0)
    """Steps of recorded episodes at which dreams start, M having followed so far; none means where the task says."""
