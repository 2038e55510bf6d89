"""Settings of dreams."""

from dataclasses import dataclass

from worldmodels.core.settings import choice, number

LATER = ("dropout",)
"""Settings that earlier versions lacked, and that are off by default."""


@dataclass(frozen=True)
class DreamConfig:
    """The dreams in which C is evolved."""

    temperature: float = number(1.15, above=0)
    """Sampling temperature of the dream: mixture logits are divided by it, noise is multiplied by its square root."""
    termination: str = choice("sample", "sample", "threshold", "health")
    """How a dream ends: sample (an end is drawn from its predicted probability), threshold (the output of the end head,
    which memory.end_weight raises, exceeds 0.5) or health (hits are drawn from their predicted probability and take as
    much health as hits took in recorded episodes, until none is left; needs memory.hit_weight)."""
    dropout: float = number(0.0, low=0, high=0.9)
    """Share of z and of h that the M that dreams does not see: one mask per dream, the same for all its steps, so that
    every dream is a slightly different world. For an M that was trained with memory.dropout."""
    start_steps: tuple[int, ...] = number((), low=0)
    """Steps of recorded episodes at which dreams start, with M's state at that step; none means the task's default."""
