"""Settings of C."""

from dataclasses import dataclass

from worldmodels.core.settings import choice, number


@dataclass(frozen=True)
class ControllerConfig:
    """C: a map from its inputs to the controls."""

    inputs: tuple[str, ...] = choice((), "z", "h", "c")
    """Inputs of C: z (the latent of the frame), h and c (M's hidden and cell state); none means the task's default."""
    acts_on: str = choice("mean", "mean", "sample")
    """The z that agents act on: mean (of V's encoding of a frame) or sample (drawn anew at every step, as in dreams and
    in the authors' code, with random numbers that follow from the seed of the episode)."""
    hidden: int = number(0, low=0, high=4096)
    """Hidden units (tanh) between the inputs and the controls of C; 0 means that C is linear. In the paper, a C that
    sees z alone was also tried with 40."""
