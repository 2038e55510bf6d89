"""The picture that the agent sees of a CarRacing environment: what is read from the environment, and drawing it.

The drawing is compiled by Numba, because most machines have no C compiler. This takes some ten seconds, once: the
result is kept in Numba's cache.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
import pygame
from gymnasium.envs.box2d import car_racing

from worldmodels.tasks.car_racing import coverage, drawing, overlay
from worldmodels.tasks.car_racing.coverage import SIZE, new_areas
from worldmodels.tasks.car_racing.drawing import draw_track
from worldmodels.tasks.car_racing.overlay import draw_bar, draw_car, new_patch

_INDICATORS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 0, 255), (51, 0, 255), (51, 0, 255), (0, 255, 0), (255, 0, 0)], np.float32
)
"""Colours of speed, rotation of the four wheels, steering and turning."""
_GROUND = car_racing.PLAYFIELD, car_racing.GRASS_DIM
"""Half the size of the playing field, and the size of a square of grass."""


def _shapes(car: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of a wheel (4, 2), of the polygons of the hull (4, 8, 2), and how many each of these has (4,).

    In Box2D's order, on which it depends which pixels SDL fills.
    """
    hull = np.zeros((len(car.hull.fixtures), 8, 2))
    counts = np.array([len(fixture.shape.vertices) for fixture in car.hull.fixtures])
    for corners, count, fixture in zip(hull, counts, car.hull.fixtures, strict=True):
        corners[:count] = fixture.shape.vertices
    return np.array(car.wheels[0].fixtures[0].shape.vertices), hull, counts


class Picture:
    """Draws an environment whose track has been made."""

    _memory = new_areas()
    _patch = new_patch()
    _texts: ClassVar[dict[str, np.ndarray]] = {}
    _shapes: ClassVar[tuple[np.ndarray, np.ndarray, np.ndarray] | None] = None

    def __init__(self, env: Any) -> None:
        self._env = env
        tiles = [i for i, (_, color) in enumerate(env.road_poly) if isinstance(color, np.ndarray)]
        # All colours of tiles in one array. The tiles keep views of it, since visits change them in place.
        self._colors = np.array([env.road_poly[i][1] for i in tiles])
        for tile, index, color in zip(env.road, tiles, self._colors, strict=True):
            tile.color = color
            env.road_poly[index] = (env.road_poly[index][0], color)
        corners = np.array([env.road_poly[i][0] for i in tiles])
        kerbs = [entry for entry in env.road_poly if not isinstance(entry[1], np.ndarray)]
        self._sides = np.ascontiguousarray(corners[:, 0]), np.ascontiguousarray(corners[:, 1])
        self._kerbs = np.array([polygon for polygon, _ in kerbs], float).reshape(-1, 4, 2)
        self._white = np.array([float(color[1] == 255) for _, color in kerbs])
        # SDL takes whole numbers, rounded down.
        self._ground_colors = np.floor([env.bg_color, env.grass_color, env.road_color]).astype(np.float32)

    def draw(self) -> np.ndarray:
        """The picture now, (96, 96, 3) uint8."""
        env = self._env
        car = env.car
        if self._shapes is None:
            Picture._shapes = _shapes(car)
        hull, wheels = car.hull, car.wheels
        position, angle = hull.position, -hull.angle
        zoom = 0.1 * car_racing.SCALE * max(1 - env.t, 0) + car_racing.ZOOM * car_racing.SCALE * min(env.t, 1)
        cos, sin = math.cos(angle), math.sin(angle)
        x, y = position.x, position.y
        numbers = [cos, sin, zoom]
        numbers += [car_racing.WINDOW_W / 2 - (x * cos - y * sin) * zoom]
        numbers += [car_racing.WINDOW_H / 4 - (x * sin + y * cos) * zoom]
        for wheel in wheels:
            position = wheel.position
            numbers += [position.x, position.y, wheel.angle]
        velocity = hull.linearVelocity
        numbers += [x, y, -angle, *(wheel.phase for wheel in wheels), math.hypot(velocity.x, velocity.y)]
        numbers += [*(wheel.omega for wheel in wheels), wheels[0].joint.angle, hull.angularVelocity]
        picture = np.empty((SIZE, SIZE, 3), np.uint8)
        _draw(
            picture,
            np.array(numbers),
            self._memory,
            self._patch,
            self._text(f"{env.reward:04.0f}"),
            self._sides,
            self._colors,
            (self._kerbs, self._white),
            self._ground_colors,
            self._shapes,
        )
        return picture

    def _text(self, score: str) -> np.ndarray:
        """The score as it is drawn in the bar, (12, 12, 3) uint8."""
        if score not in self._texts:
            pygame.font.init()
            corner = pygame.Surface((125, 100))  # the left end of the bar in the window
            font = pygame.font.Font(pygame.font.get_default_font(), 42)
            text = font.render(score, True, (255, 255, 255), (0, 0, 0))
            box = text.get_rect()
            box.center = (60, 50)
            corner.blit(text, box)
            small = pygame.surfarray.array3d(pygame.transform.smoothscale(corner, (12, 12)))
            self._texts[score] = np.ascontiguousarray(small.transpose(1, 0, 2))
        return self._texts[score]


def _compiled_draw() -> Callable[..., None]:
    """The compiled function that draws everything: one, since every call from Python takes microseconds."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in (coverage, drawing, overlay))
    version = int.from_bytes(hashlib.sha256(sources).digest()[:6], "big")

    def draw(
        picture: np.ndarray,
        numbers: np.ndarray,
        memory: tuple[np.ndarray, np.ndarray],
        patch: np.ndarray,
        text: np.ndarray,
        sides: tuple[np.ndarray, np.ndarray],
        tile_colors: np.ndarray,
        kerbs: tuple[np.ndarray, np.ndarray],
        colors: np.ndarray,
        shapes: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> int:
        camera, bodies, phases, meters = numbers[:5], numbers[5:20].reshape(5, 3), numbers[20:24], numbers[24:31]
        draw_track(picture, memory, camera, _GROUND, (sides[0], sides[1], tile_colors), kerbs, colors)
        draw_car(picture, patch, camera, bodies, phases, shapes[0], shapes[1], shapes[2])
        draw_bar(picture, text, meters, _INDICATORS)
        # Numba's cache does not notice changes of the functions called here, but it does notice those of this number.
        return version

    try:
        return numba.njit(draw, error_model="numpy", cache=True)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder in which the cache can be written
        return numba.njit(draw, error_model="numpy")  # type: ignore[no-any-return]


_draw = _compiled_draw()
