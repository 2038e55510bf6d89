"""Gymnasium's CarRacing-v3 with a picture that is drawn many times as fast: the id "worldmodels/CarRacing-v3".

Physics, tracks, seeds, rewards and ends are Gymnasium's own code, which the class inherits. Only what the agent sees is
drawn in another way, directly at 96 x 96 pixels instead of on a window of 1000 x 800 that is then shrunk.
"""

import contextlib
from typing import Any

import numpy as np
from gymnasium.envs.box2d import car_racing

from worldmodels.tasks.car_racing.picture import Picture


class CarRacing(car_racing.CarRacing):
    """CarRacing-v3 whose observations differ from those of Gymnasium by less than 0.1 of 255 on average.

    Observations are new arrays (96, 96, 3) uint8. Arguments and everything else are as in Gymnasium, the render modes
    "human" and "rgb_array" too.

    draws: whether observations are drawn; while it is False, ``step`` returns None for them, and :meth:`observe` draws.
    """

    draws = True

    def observe(self) -> np.ndarray:
        """The observation of the current state, (96, 96, 3) uint8."""
        picture = self._picture.draw()
        self.state = picture
        return picture

    def _create_track(self) -> bool:
        created: bool = super()._create_track()  # type: ignore[no-untyped-call]
        if created:
            self._picture = Picture(self)
        return created

    def _render(self, mode: str) -> Any:
        if mode != "state_pixels" or self.car is None or "t" not in self.__dict__:
            return super()._render(mode)
        return self._picture.draw() if self.draws else None


def compile_drawing() -> None:
    """Compile the drawing, unless it is in Numba's cache, so that several processes need not do it at the same time."""
    with contextlib.closing(CarRacing()) as env:
        env.reset(seed=0)
