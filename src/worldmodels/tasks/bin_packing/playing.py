"""Packing bins by hand."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from gymnasium import Env
from gymnasium.vector import VectorEnv

from worldmodels.tasks.base import Board, Playing
from worldmodels.tasks.bin_packing.world import ENVIRONMENT, BinPackingEnv, BinPackingVectorEnv


class BinPackingPlaying(Playing):
    """Playing on a board that shows the open bins side by side."""

    gymnasium_id = f"worldmodels.tasks.bin_packing.world:{ENVIRONMENT}"
    frames_per_second = 5

    def __init__(self, capacity: int, options: Mapping[str, Any]) -> None:
        self._capacity, self._options = capacity, options
        self.action_names = tuple(f"level {level}" for level in range(capacity))
        self.action_ranges = ((0.0, 1.0),) * capacity

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """The options of this variant, with pictures as observations."""
        return {**self._options, "observation": "picture"}

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """Always a new bin (0): arrow keys cannot choose a level, and people choose on the board instead."""
        return np.array(0, np.int64)

    def board(self) -> Board:
        """The board that shows the open bins side by side."""
        from worldmodels.tasks.bin_packing.board import BinsBoard

        return BinsBoard(self._capacity)

    def board_picture(self, env: VectorEnv, action: Any | None) -> np.ndarray:
        """The board of the first world, with the chosen level highlighted."""
        world = cast(BinPackingVectorEnv, env)
        chosen = None if action is None else int(action)
        return np.array(self.board().draw(world.state()[0], world.action_mask()[0], chosen))

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """The numbers of open bins and of full bins, which are removed from the board."""
        instances = cast(BinPackingEnv, env.unwrapped).instances
        return {"open bins": int(instances.state()[0, :-1].sum()), "full bins": int(instances.full_bins[0])}
