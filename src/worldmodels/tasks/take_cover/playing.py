"""Playing Doom TakeCover by hand."""

import numpy as np

from worldmodels.tasks.base import Playing

ENVIRONMENT = "worldmodels.tasks.take_cover.world:worldmodels/TakeCover-v0"
"""The id for ``gymnasium.make``."""
TOP, BOTTOM = 72, 168
"""Rows of the screen that frames keep. Without floor and ceiling, distant fireballs cover more than one pixel."""


class TakeCoverPlaying(Playing):
    """Playing the stock game with the arrow keys."""

    gymnasium_id = ENVIRONMENT
    frames_per_second = 35
    action_names = ("left, right",)
    action_ranges = ((-1.0, 1.0),)
    visible_rows = (TOP / 240, BOTTOM / 240)
    episode_word = "game"

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """1 while the right key is held, 2 while only the left one is, else 0."""
        return np.array(int("right" in held) if "right" in held or "left" not in held else 2, np.int64)
