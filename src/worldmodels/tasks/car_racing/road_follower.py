"""A hand-written driver who follows the road that the picture shows: a baseline, and a source of episodes at speed.

Legend: N pictures, (N, 96, 96, 3) uint8, as CarRacing shows them.
"""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations

_PACE = 90.0
"""Speed on straight roads, in the simulator's units per second; in the sharpest bends it is 0.4 times as high."""
_SEARCHING_PACE = 18.0
"""Speed at which a driver who has left the road drives back to it."""
_GAIN, _SEARCHING_GAIN = 1.8, 1.2
"""Steering per radian of the angle to the road, on it and beside it."""
_CAR_ROW, _CAR_COLUMN, _BAR_ROW = 70, 47.5, 84
"""Where the car is in a picture, where it points upwards, and where the bar that shows the speed begins."""
_FURTHEST, _HALF_WIDTH, _SHARP_BEND = 56, 10, 20
"""In pixels: how far ahead the road is followed; how far from one row to the next its pixels may be from the middle of
the road; and how far to the side it leads in the sharpest bends."""


class RoadFollower:
    """Steers to the middle of the road ahead, brakes before bends, and drives back to the road after leaving it."""

    def __init__(self, seeds: Sequence[int]) -> None:
        del seeds  # There is nothing random about it.

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Actions (N, 3) float32: steer, gas and brake."""
        pictures = observations.raw
        now = speed(pictures)
        angle, bend, lost = way(pictures, np.clip(10 + 0.25 * now, 12, 32))
        target = np.where(lost, _SEARCHING_PACE, _PACE * (1 - 0.6 * bend))
        steer = np.clip(np.where(lost, _SEARCHING_GAIN, _GAIN) * angle, -1, 1)
        gas, brake = np.clip(0.05 * (target - now), 0, 0.8), np.clip(0.03 * (now - target - 5), 0, 0.6)
        return np.stack([steer, gas, brake], axis=1).astype(np.float32)


def way(pictures: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the road leads, each (N,): the angle to it, how much it bends, and whether the car has left it.

    angle: in radians, positive to the right, to the middle of the road ``ahead`` (N,) rows ahead of the car, or to the
    nearest piece of road if the car has left it; bend: from 0 to 1, how far to the side the road leads at twice that.
    """
    grey = _grey(pictures)
    columns, count = np.arange(grey.shape[2]), len(grey)
    middle, found = np.full(count, _CAR_COLUMN), np.zeros(count, dtype=np.int64)
    followed = np.ones(count, dtype=bool)
    near, far, near_row = middle.copy(), middle.copy(), np.full(count, _CAR_ROW - 7.0)
    for row in range(_CAR_ROW - 7, _CAR_ROW - _FURTHEST, -1):
        road = grey[:, row] & (np.abs(columns - middle[:, None]) < _HALF_WIDTH)
        pixels = road.sum(axis=1)
        seen = followed & (pixels >= 2)
        middle = np.where(seen, (road @ columns) / np.maximum(pixels, 1), middle)
        found += seen
        # The first rows may be hidden by the car's own nose.
        followed = seen | (followed & (found == 0) & (row > _CAR_ROW - 14))
        if not followed.any():
            break
        within = seen & (_CAR_ROW - row <= ahead)
        near, near_row = np.where(within, middle, near), np.where(within, row, near_row)
        far = np.where(seen & (_CAR_ROW - row <= 2 * ahead), middle, far)
    angle, lost = np.arctan2(near - _CAR_COLUMN, _CAR_ROW - near_row), found < 3
    if lost.any():
        angle[lost] = _nearest(grey[lost])
    return angle, np.minimum(1.0, np.abs(far - _CAR_COLUMN) / _SHARP_BEND), lost


def _nearest(grey: np.ndarray) -> np.ndarray:
    """The angle (N,) to the nearest pixel of road, 0 where there is none; one behind the car counts as further away."""
    rows, columns = np.mgrid[: grey.shape[1], : grey.shape[2]]
    up, right = _CAR_ROW - rows, columns - _CAR_COLUMN
    distance = np.where(grey, np.hypot(up, right) + np.where(up < 0, 10, 0), np.inf).reshape(len(grey), -1)
    nearest = distance.argmin(axis=1)
    angle = np.arctan2(right.ravel()[nearest], up.ravel()[nearest])
    return np.where(np.isfinite(distance.min(axis=1)), angle, 0.0)


def _grey(pictures: np.ndarray) -> np.ndarray:
    """Which pixels above the bar have the colour of the road, (N, 84, 96) bool."""
    red, green, blue = np.moveaxis(pictures[:, :_BAR_ROW].astype(np.int16), -1, 0)
    return np.asarray((np.abs(red - green) < 12) & (np.abs(green - blue) < 12))


def speed(pictures: np.ndarray) -> np.ndarray:
    """The car's speed (N,), in the simulator's units per second, read off the white bar at the bottom of the picture.

    The bar grows by a pixel with every 20 units, and its last pixel is as bright as it is full.
    """
    bar = pictures[:, _BAR_ROW:, 12:14].min(axis=-1) / 255
    return np.asarray(bar.sum(axis=(1, 2)) / 2 * 20.0)
