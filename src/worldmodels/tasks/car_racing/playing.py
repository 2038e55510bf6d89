"""Driving CarRacing by hand."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env

from worldmodels.tasks.base import Playing
from worldmodels.tasks.car_racing.repeated import REPEATED, WATCHED

_FRAMES_PER_SECOND = 50


class CarRacingPlaying(Playing):
    """Playing the stock environment with the arrow keys; action_repeat: frames for which every action lasts."""

    gymnasium_id = "CarRacing-v3"
    action_names = ("steer", "gas", "brake")
    action_ranges = ((-1.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    visible_rows = (0.0, 84 / 96)
    episode_word = "track"

    def __init__(self, action_repeat: int = 1) -> None:
        self._repeat = action_repeat
        self.frames_per_second = round(_FRAMES_PER_SECOND / action_repeat)

    def make(self, **options: Any) -> Env[Any, Any]:
        """The stock environment, drawn faster."""
        if self._repeat == 1:
            return gymnasium.make(WATCHED, **options)
        return gymnasium.make(REPEATED, world=WATCHED, action_repeat=self._repeat, **options)

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """Left and right steer fully, up is full gas, down brakes at 0.8, as in the simulator's own demo."""
        steer = float("right" in held) - float("left" in held)
        return np.array([steer, float("up" in held), 0.8 * float("down" in held)], dtype=np.float32)

    def stick_action(self, steer: float, forward: float, back: float) -> np.ndarray:
        """The stick steers, the right trigger is the gas and the left one the brake, at most 0.8 as with the keys."""
        return np.array([np.clip(steer, -1, 1), np.clip(forward, 0, 1), 0.8 * np.clip(back, 0, 1)], np.float32)

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """The car's speed in the simulator's units per second."""
        hull = env.unwrapped.car.hull  # type: ignore[attr-defined]
        return {"speed": float(np.hypot(*hull.linearVelocity))}
