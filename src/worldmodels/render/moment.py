"""What is recorded of one step, and the interface of what draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL.Image import Image


@dataclass(frozen=True)
class Moment:
    """One step of an episode from the agent's point of view.

    score: sum of the rewards so far; world: the real picture, (H, W, 3) uint8; seen: V's reconstruction of the frame,
    (64, 64, 3) uint8; expected: M's prediction of this frame, made one step before and decoded, (64, 64, 3) uint8, None
    at the first step; action: the numbers (A,) that encode the action for M, None at the last step.
    """

    step: int
    score: float
    world: np.ndarray
    seen: np.ndarray
    expected: np.ndarray | None
    action: np.ndarray | None


class MomentPainter(Protocol):
    """Draws moments as pictures of one ``size`` (width, height); gif_scale: how much smaller they are in a GIF."""

    size: tuple[int, int]
    gif_scale: float

    def draw(self, moment: Moment) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""
        ...

    def sheet(self, moments: Sequence[Moment]) -> Image:
        """A picture of several moments."""
        ...
