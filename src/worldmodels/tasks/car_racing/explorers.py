"""Policies that collect CarRacing's episodes: random actions, noisy road followers, and policies with noise added."""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations, Policy

_LOW, _HIGH = np.array([-1.0, 0.0, 0.0]), np.ones(3)
"""Bounds of steer, gas and brake."""


def _clip(actions: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(actions, _LOW, _HIGH), dtype=np.float32)


_LAPSES = 0.006
"""Highest probability per frame that a lapse begins."""
_SHORTEST_LAPSE, _LONGEST_LAPSE = 5, 50
"""In frames; 50 are a second."""
_NOISE_KEPT, _NOISE_SD = 0.9, 0.25 / (1 - 0.9**2) ** 0.5
"""Share of the noise that is left a frame later, and its standard deviation, about 0.57."""


class Uniform:
    """Uniformly random actions, drawn anew at every step, with one random stream per environment."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Random actions (n, 3)."""
        actions = [self._streams[row].uniform(_LOW, _HIGH) for row in rows.tolist()]
        return np.array(actions, dtype=np.float32)


class _Noise:
    """Ornstein-Uhlenbeck noise on three controls, one random stream per environment, drawn every ``frames`` frames."""

    def __init__(self, streams: Sequence[np.random.Generator], frames: int) -> None:
        self._streams = streams
        self._kept = _NOISE_KEPT**frames
        self._kick = _NOISE_SD * (1 - self._kept**2) ** 0.5
        self._values = np.zeros((len(streams), 3))

    def draw(self, rows: np.ndarray) -> np.ndarray:
        kicks = np.array([self._streams[row].standard_normal(3) for row in rows.tolist()])
        self._values[rows] = self._kept * self._values[rows] + self._kick * kicks
        return np.array(self._values[rows])


class Perturbed:
    """A policy with Ornstein-Uhlenbeck noise on its actions and with lapses, in which it holds a random action.

    A lapse lasts 5 to 50 frames; an action lasts ``frames`` of them. Without such errors the recorded cars always
    follow the road: M cannot learn whether a car turns because of its steering or because of the road, and dreams of
    cars that follow the road by themselves.
    """

    def __init__(self, policy: Policy, seeds: Sequence[int], frames: int = 1) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._policy, self._noise = policy, _Noise(self._streams, frames)
        draw = np.array([stream.random(2) for stream in self._streams])
        self._scale, self._chance = 0.6 * draw[:, 0], _LAPSES * frames * draw[:, 1]
        self._shortest, self._longest = max(1, _SHORTEST_LAPSE // frames), max(1, _LONGEST_LAPSE // frames)
        self._held = np.zeros((len(seeds), 3))
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's actions (n, 3) with noise, or during a lapse the action that is held."""
        actions = self._policy.act(observations, rows) + self._noise.draw(rows) * self._scale[rows, None]
        for row in rows[self._left[rows] == 0].tolist():
            stream = self._streams[row]
            if stream.random() < self._chance[row]:
                self._left[row] = stream.integers(self._shortest, self._longest + 1)
                gas, brake = stream.random() * (stream.random(2) < (0.6, 0.2))
                self._held[row] = 0.5 * stream.standard_normal(), gas, brake
        lapsed = self._left[rows] > 0
        actions[lapsed] = self._held[rows[lapsed]]
        self._left[rows[lapsed]] -= 1
        return _clip(actions)


class Explorer:
    """Ornstein-Uhlenbeck noise on every control, around either a random bias or a driver who follows the road.

    Random driving leaves the road within seconds; V and M would then learn from little but grass and never from a
    corner at speed. So only a quarter of the episodes drive at random, each with its own steering bias and mean gas.
    The others follow the road, each at its own pace, from a walk to one at which corners are lost, and drive back to
    the road when they have left it. An action lasts ``frames`` frames.
    """

    def __init__(self, seeds: Sequence[int], frames: int = 1) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        draw = np.array([stream.random(6) for stream in self._streams])
        self._follows = draw[:, 0] < 0.85
        self._gas = np.where(self._follows, 0.0, 0.6 * draw[:, 1])
        self._bias = np.where(self._follows, 0.15, 0.5) * (2 * draw[:, 2] - 1)
        self._pace = 30 + 80 * draw[:, 3]
        self._gain = 1.2 + 1.2 * draw[:, 4]
        self._scale = np.where(self._follows, 0.1 + 0.5 * draw[:, 5], 1.0)
        self._noise = _Noise(self._streams, frames)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Actions (n, 3)."""
        noise = self._noise.draw(rows) * self._scale[rows, None]
        follows = self._follows[rows]
        steer, gas, brake = self._bias[rows] + 0.5 * noise[:, 0], self._gas[rows].copy(), np.zeros(len(rows))
        if follows.any():
            driven = self._followed(observations.raw[follows], rows[follows])
            steer[follows] += driven[0]
            gas[follows], brake[follows] = driven[1:]
        return _clip(np.stack([steer, gas + 0.3 * noise[:, 1], brake + 0.15 * noise[:, 2] - 0.1], axis=1))

    def _followed(self, pictures: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steer, gas and brake, each (n,), of the drivers who follow the road in their pictures (n, 96, 96, 3)."""
        speed = _speed(pictures)
        angle, bend, lost = _way(pictures, np.clip(10 + 0.25 * speed, 12, 32))
        # Slow down in bends and beside the road; the pace, and so the speed in bends, varies.
        target = np.where(lost, _SEARCHING_PACE, self._pace[rows] * (1 - 0.6 * bend))
        steer = np.where(lost, 1.2, self._gain[rows]) * angle
        return steer, np.clip(0.05 * (target - speed), 0, 0.8), 0.1 + np.clip(0.03 * (speed - target - 5), 0, 0.6)


_SEARCHING_PACE = 18
"""Speed at which a driver who has left the road drives back to it."""
_CAR_ROW, _CAR_COLUMN, _BAR_ROW = 70, 47.5, 84
"""Where the car is in a picture, which way up is the way it points, and where the bar with the speed begins."""
_FURTHEST, _HALF_WIDTH, _SHARP_BEND = 56, 10, 20
"""Pixels: how far ahead the road is followed; how far from one row to the next its pixels may be from the middle of
the road, and how far to the side it leads in the sharpest bends."""


def _way(pictures: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the road leads, each (n,): the angle to it, how much it bends, and whether the car has left it.

    angle: in radians, positive to the right, to the middle of the road ``ahead`` (n,) rows ahead of the car, or to the
    nearest piece of road if the car has left it; bend: from 0 to 1, how far to the side the road leads at twice that.
    """
    grey = _grey(pictures)
    columns, count = np.arange(grey.shape[2]), len(grey)
    middle, found = np.full(count, _CAR_COLUMN), np.zeros(count, dtype=np.int64)
    alive = np.ones(count, dtype=bool)
    near, far, near_row = middle.copy(), middle.copy(), np.full(count, _CAR_ROW - 7.0)
    for row in range(_CAR_ROW - 7, _CAR_ROW - _FURTHEST, -1):
        road = grey[:, row] & (np.abs(columns - middle[:, None]) < _HALF_WIDTH)
        pixels = road.sum(axis=1)
        seen = alive & (pixels >= 2)
        middle = np.where(seen, (road @ columns) / np.maximum(pixels, 1), middle)
        found += seen
        # The first rows may be hidden by the car's own nose.
        alive = seen | (alive & (found == 0) & (row > _CAR_ROW - 14))
        if not alive.any():
            break
        within = seen & (_CAR_ROW - row <= ahead)
        near, near_row = np.where(within, middle, near), np.where(within, row, near_row)
        far = np.where(seen & (_CAR_ROW - row <= 2 * ahead), middle, far)
    angle, lost = np.arctan2(near - _CAR_COLUMN, _CAR_ROW - near_row), found < 3
    if lost.any():
        angle[lost] = _nearest(grey[lost])
    return angle, np.minimum(1.0, np.abs(far - _CAR_COLUMN) / _SHARP_BEND), lost


def _nearest(grey: np.ndarray) -> np.ndarray:
    """The angle (n,) to the nearest pixel of road, 0 where there is none; one behind the car counts as further away."""
    rows, columns = np.mgrid[: grey.shape[1], : grey.shape[2]]
    up, right = _CAR_ROW - rows, columns - _CAR_COLUMN
    distance = np.where(grey, np.hypot(up, right) + np.where(up < 0, 10, 0), np.inf).reshape(len(grey), -1)
    nearest = distance.argmin(axis=1)
    angle = np.arctan2(right.ravel()[nearest], up.ravel()[nearest])
    return np.where(np.isfinite(distance.min(axis=1)), angle, 0.0)


def _grey(pictures: np.ndarray) -> np.ndarray:
    """Which pixels above the bar have the colour of the road, (n, 84, 96) bool."""
    red, green, blue = np.moveaxis(pictures[:, :_BAR_ROW].astype(np.int16), -1, 0)
    grey: np.ndarray = (np.abs(red - green) < 12) & (np.abs(green - blue) < 12)
    return grey


def _speed(pictures: np.ndarray) -> np.ndarray:
    """The car's speed (n,), in the simulator's units per second, read off the white bar at the bottom of the screen.

    The bar grows by a pixel with every 20 units, and its last pixel is as bright as it is full.
    """
    bar = pictures[:, _BAR_ROW:, 12:14].min(axis=-1) / 255
    return np.asarray(bar.sum(axis=(1, 2)) / 2 * 20.0)
