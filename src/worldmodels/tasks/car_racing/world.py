"""CarRacing-v3 for watching and playing: the same simulation and the same pictures as the stock environment, faster.

The stock environment transforms each of its 700 polygons in Python, although few are visible, and it does so twice
where people watch: for the observation, and for the larger picture. Here all polygons are transformed together, only
those that touch the picture are drawn, and the drawing of the observation serves for the larger picture, too.
"""

from typing import Any

import gymnasium
import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing as stock
from pygame import gfxdraw

ENVIRONMENT = "worldmodels/WatchedCarRacing-v3"
_EDGE = 2.0
"""Pixels around the picture in which polygons are drawn nevertheless, because their smoothed edges are wider."""
_BAR = stock.WINDOW_H // 8
"""Height of the bar of indicators at the bottom of the picture, in pixels."""
_PATCHES = [(x, y) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
"""Places of the darker patches of grass, in units of their size."""


class WatchedCarRacing(stock.CarRacing):
    """The stock environment, drawn faster. In the picture for people, the score in the bar is that of a step before."""

    surf: Any
    car: Any
    _shapes: tuple[Any, int, np.ndarray] | None = None
    """The track's list of polygons, its length, and the corners (n, 4, 2) of the ground, the grass and the track."""

    def _render(self, mode: str) -> Any:
        if mode != "rgb_array" or getattr(self, "surf", None) is None or self.car is None:
            return super()._render(mode)
        # The picture of the observation lacks only the traces of the wheels, which are below the car.
        picture = pygame.transform.flip(self.surf, False, True)
        picture.set_clip((0, _BAR, stock.WINDOW_W, stock.WINDOW_H - _BAR))
        self.car.draw(picture, *self._view, True)
        scaled = pygame.transform.smoothscale(picture, (stock.VIDEO_W, stock.VIDEO_H))
        pixels = np.frombuffer(pygame.image.tobytes(scaled, "RGB"), np.uint8)
        return pixels.reshape(stock.VIDEO_H, stock.VIDEO_W, 3)[::-1]

    def _render_road(self, zoom: float, translation: Any, angle: float) -> None:
        self._view = zoom, translation, angle
        corners = self._corners()
        # pygame's sine and cosine, which the stock environment uses, are exact for multiples of a right angle.
        cosine, sine = pygame.math.Vector2(1, 0).rotate_rad(angle)
        x, y = corners[..., 0], corners[..., 1]
        places = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1) * zoom + np.array(tuple(translation))
        size = stock.WINDOW_W + _EDGE, stock.WINDOW_H + _EDGE
        seen = ((places.max(axis=1) >= -_EDGE) & (places.min(axis=1) <= size)).all(axis=1)
        for index in np.flatnonzero(seen).tolist():
            tile = index - len(_PATCHES) - 1
            # The simulator changes the colour of a tile when the car touches it.
            grass = self.grass_color if index else self.bg_color
            color = grass if tile < 0 else [int(part) for part in self.road_poly[tile][1]]
            polygon = places[index].tolist()
            gfxdraw.aapolygon(self.surf, polygon, color)
            gfxdraw.filled_polygon(self.surf, polygon, color)

    def _corners(self) -> np.ndarray:
        road = self.road_poly
        if self._shapes is None or self._shapes[0] is not road or self._shapes[1] != len(road):
            patch = np.array([(1, 0), (0, 0), (0, 1), (1, 1)])
            grass = stock.GRASS_DIM * (np.array(_PATCHES)[:, None] + patch)
            tiles = [[(point[0], point[1]) for point in points] for points, _ in road]
            field = stock.PLAYFIELD * np.array([[(1, 1), (1, -1), (-1, -1), (-1, 1)]])
            self._shapes = road, len(road), np.concatenate([field, grass, np.array(tiles)])
        return self._shapes[2]


gymnasium.register(
    ENVIRONMENT, entry_point="worldmodels.tasks.car_racing.world:WatchedCarRacing", max_episode_steps=1000
)
