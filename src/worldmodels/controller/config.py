"""Settings of C."""

from dataclasses import dataclass

from worldmodels.core.settings import choice


@dataclass(frozen=True)
class ControllerConfig:
    """C: a linear map from its inputs to the controls."""

    inputs: tuple[str, ...] = choice((), "z", "h", "c")
    """Inputs of C: z (the latent of the frame), h and c (M's hidden and cell state); none means the task's default."""
