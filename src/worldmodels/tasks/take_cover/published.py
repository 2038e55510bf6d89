"""Doom TakeCover as the published weights of 2018 see it and act in it (Ha & Schmidhuber, "World Models")."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels.tasks.base import Playing, ProcessWorld, World
from worldmodels.tasks.published_frames import published_frames
from worldmodels.tasks.take_cover.leftovers import check_shared_memory, sweep
from worldmodels.tasks.take_cover.playing import ENVIRONMENT, TakeCoverPlaying
from worldmodels.tasks.take_cover.task import TakeCover

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 400
"""Rows of the screen that frames keep; the status bar is below."""
_THRESHOLD = 0.3333
"""A control above it presses one key, a control below minus it the other."""


class PublishedTakeCover(TakeCover):
    """The same game with the screen, the frames and the threshold of the authors' code; M gets the control itself."""

    title = "Doom TakeCover, frames of 2018"
    observation_shape = (480, 640, 3)
    remembers_controls = True

    @property
    def worlds(self) -> Mapping[str, World]:
        """ViZDoom's game in worker processes, with the larger screen."""
        options = {"published": True}
        return {
            "vizdoom": ProcessWorld(
                ENVIRONMENT, ("vizdoom",), "doom", options, cleanup=sweep, check=check_shared_memory
            )
        }

    @property
    def playing(self) -> Playing:
        """Played with the arrow keys."""
        return _PublishedPlaying()

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Crop the status bar and make the authors' frames of the rest."""
        return published_frames(observations[:, :_ROWS])

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Actions (N,) int64: 1 (right) for controls above 0.3333, 2 (left) below -0.3333, else 0 (nothing)."""
        side = control[:, 0]
        return np.where(side > _THRESHOLD, 1, np.where(side < -_THRESHOLD, 2, 0)).astype(np.int64)

    def dream_action(self, control: "Tensor") -> "Tensor":
        """The controls themselves, (N, 1) float32."""
        return control.float()


class _PublishedPlaying(TakeCoverPlaying):
    """Playing the game with the larger screen."""

    visible_rows = (0.0, _ROWS / 480)

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """The larger screen."""
        return {"published": True}
