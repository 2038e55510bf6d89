"""Draws the car and the bar with the indicators over the small picture of CarRacing.

Both are small, so that they are filled in whole pixels of Gymnasium's window, exactly as there, and averaged.
"""

import math
from typing import Any

import numpy as np

from worldmodels.tasks.car_racing.coverage import ROWS, SIZE, WINDOW_H, WINDOW_W, compiled

_PATCH = 144
"""Width and height in the window, in pixels, of what is filled around the car. The car has at most 100 pixels."""
_CELLS = 20  # pixels of the picture that the patch can touch, in each direction
_numbers: Any = np.arange(5)
_, _WHEEL, _MARK, _HULL, _FOUR = _numbers
_HULL_RED, _MARK_GRAY = np.float32(204), np.float32(77)
_SX, _SY = SIZE / WINDOW_W, SIZE / WINDOW_H


def new_patch() -> np.ndarray:
    """Memory for :func:`draw_car`."""
    return np.zeros((_PATCH, _PATCH), np.uint8)


@compiled
def fill_polygon(patch: np.ndarray, points: np.ndarray, count: int, value: int) -> None:
    """Fill the polygon ``points[:count]`` (whole numbers) in ``patch`` as ``pygame.draw.polygon`` does."""
    low, high = points[0, 1], points[0, 1]
    for i in range(count):
        low, high = min(low, points[i, 1]), max(high, points[i, 1])
    crossings = np.empty(16, np.int64)
    if low == high:
        left, right = points[0, 0], points[0, 0]
        for i in range(count):
            left, right = min(left, points[i, 0]), max(right, points[i, 0])
        _fill_line(patch, low, left, right, value)
        return
    for y in range(low, high + 1):
        found = 0
        for i in range(count):
            h = i - 1 if i > 0 else count - 1
            x1, y1, x2, y2 = points[h, 0], points[h, 1], points[i, 0], points[i, 1]
            if y1 > y2:
                x1, y1, x2, y2 = x2, y2, x1, y1
            if y1 < y2 and (y1 <= y < y2 or (y == high and y2 == high)):
                x = np.float32((y - y1) * (x2 - x1)) / np.float32(y2 - y1)
                crossing = int(math.floor(x) if found % 2 == 0 else math.ceil(x)) + x1
                at = found
                while at > 0 and crossings[at - 1] > crossing:
                    crossings[at] = crossings[at - 1]
                    at -= 1
                crossings[at] = crossing
                found += 1
        for i in range(0, found - 1, 2):
            _fill_line(patch, y, crossings[i], crossings[i + 1], value)
    # Horizontal edges between the top and the bottom.
    for i in range(count):
        h = i - 1 if i > 0 else count - 1
        y = points[i, 1]
        if low < y < high and y == points[h, 1]:
            _fill_line(patch, y, min(points[i, 0], points[h, 0]), max(points[i, 0], points[h, 0]), value)


@compiled
def _fill_line(patch: np.ndarray, y: int, left: int, right: int, value: int) -> None:
    if 0 <= y < patch.shape[0]:
        for x in range(max(left, 0), min(right + 1, patch.shape[1])):
            patch[y, x] = value


@compiled
def draw_car(
    picture: np.ndarray,
    patch: np.ndarray,
    camera: np.ndarray,
    bodies: np.ndarray,
    phases: np.ndarray,
    wheel: np.ndarray,
    hull: np.ndarray,
    hull_counts: np.ndarray,
) -> None:
    """Draw the car over ``picture`` (96, 96, 3) uint8.

    patch: (_PATCH, _PATCH) uint8 zeros, left so; camera: as for ``draw_track``; bodies: x, y and angle of the four
    wheels and of the hull (5, 3); phases: rotation angles of the wheels (4,); wheel: corners of a wheel (4, 2); hull:
    corners of the polygons of the hull (4, 8, 2) and how many each has (4,).
    """
    center = _window(bodies[4], 0.0, 0.0, camera)
    # Where the patch begins in the window, and the lowest and highest x and y in use in it.
    box = np.array([int(center[0]) - _PATCH // 2, int(center[1]) - _PATCH // 2, _PATCH, 0, _PATCH, 0])
    points, mark = np.empty((8, 2), np.int64), np.empty((4, 2))
    width, radius = abs(wheel[0, 0]), abs(wheel[0, 1])
    for i in range(4):
        _place(points, bodies[i], wheel, _FOUR, camera, box)
        fill_polygon(patch, points, _FOUR, _WHEEL)
        first, second = phases[i], phases[i] + 1.2
        sin1, sin2, cos1, cos2 = math.sin(first), math.sin(second), math.cos(first), math.cos(second)
        if sin1 > 0.0 and sin2 > 0.0:
            continue
        cos1 = np.sign(cos1) if sin1 > 0.0 else cos1
        cos2 = np.sign(cos2) if sin2 > 0.0 else cos2
        for corner in range(4):
            mark[corner, 0] = -width if corner == 0 or corner == 3 else width
            mark[corner, 1] = radius * (cos1 if corner < 2 else cos2)
        _place(points, bodies[i], mark, _FOUR, camera, box)
        fill_polygon(patch, points, _FOUR, _MARK)
    for i in range(len(hull)):
        _place(points, bodies[4], hull[i], hull_counts[i], camera, box)
        fill_polygon(patch, points, hull_counts[i], _HULL)
    _shrink(picture, patch, box)


@compiled
def _window(body: np.ndarray, x: float, y: float, camera: np.ndarray) -> tuple[float, float]:
    """Where a point of a body (x, y, angle) is in the window."""
    cos, sin = math.cos(body[2]), math.sin(body[2])
    world_x, world_y = cos * x - sin * y + body[0], sin * x + cos * y + body[1]
    window_x = (world_x * camera[0] - world_y * camera[1]) * camera[2] + camera[3]
    return window_x, (world_x * camera[1] + world_y * camera[0]) * camera[2] + camera[4]


@compiled
def _place(
    points: np.ndarray, body: np.ndarray, corners: np.ndarray, count: int, camera: np.ndarray, box: np.ndarray
) -> None:
    """Put a body's corners into ``points``, relative to the patch, and enlarge ``box`` to contain them."""
    for i in range(count):
        window_x, window_y = _window(body, corners[i, 0], corners[i, 1], camera)
        x, y = int(window_x) - box[0], int(window_y) - box[1]
        points[i, 0], points[i, 1] = x, y
        box[2], box[3], box[4], box[5] = min(box[2], x), max(box[3], x), min(box[4], y), max(box[5], y)


@compiled
def _shrink(picture: np.ndarray, patch: np.ndarray, box: np.ndarray) -> None:
    """Average the filled pixels of ``patch``, put them over the picture, and clear the patch.

    In the window of the patch, y points up.
    """
    left, top = box[0], box[1]
    first_column = math.floor(left * _SX)
    first_row = math.floor((WINDOW_H - top - _PATCH) * _SY)
    shares = np.zeros((_CELLS, _CELLS, 3), np.float32)
    for y in range(max(box[4], 0), min(box[5] + 1, _PATCH)):
        upper = (WINDOW_H - 1.0 - (top + y)) * _SY - first_row
        row = int(upper)
        within = min(row + 1.0 - upper, _SY)
        line, x, end = patch[y], max(box[2], 0), min(box[3] + 1, _PATCH)
        while x < end:
            value = line[x]
            if value == 0:
                x += 1
                continue
            begin = (left + x) * _SX - first_column
            while x < end and line[x] == value:
                line[x] = 0
                x += 1
            after = (left + x) * _SX - first_column
            for column in range(int(begin), math.ceil(after)):
                inside = min(column + 1.0, after) - max(float(column), begin)
                shares[row, column, value - 1] += inside * within
                if within < _SY:
                    shares[row + 1, column, value - 1] += inside * (_SY - within)
    for row in range(_CELLS):
        y = first_row + row
        for column in range(_CELLS):
            x = first_column + column
            wheel, mark, hull = shares[row, column]
            covered = wheel + mark + hull
            if covered > 0.0 and 0 <= x < SIZE and 0 <= y < SIZE:
                gray = _MARK_GRAY * mark
                rest = np.float32(1) - min(covered, np.float32(1))
                # Shrinking makes the picture darker by 2; here rounding down has a half of it.
                lost = np.float32(1.5) * covered
                picture[y, x, 0] = max(picture[y, x, 0] * rest + gray + _HULL_RED * hull - lost, np.float32(0))
                picture[y, x, 1] = max(picture[y, x, 1] * rest + gray - lost, np.float32(0))
                picture[y, x, 2] = max(picture[y, x, 2] * rest + gray - lost, np.float32(0))


@compiled
def _draw_box(picture: np.ndarray, x0: float, x1: float, y0: float, y1: float, color: np.ndarray) -> None:
    """Draw a box whose corners are whole pixels of the window (y points down) and belong to it."""
    left, right = min(x0, x1) * _SX, (max(x0, x1) + 1.0) * _SX
    top, bottom = min(y0, y1) * _SY, (max(y0, y1) + 1.0) * _SY
    for row in range(max(int(top), 0), min(math.ceil(bottom), SIZE)):
        height = min(row + 1.0, bottom) - max(float(row), top)
        for column in range(max(int(left), 0), min(math.ceil(right), SIZE)):
            share = height * (min(column + 1.0, right) - max(float(column), left))
            for channel in range(3):
                # Boxes in the bar do not overlap, and the bar is black: what several cover of a pixel adds up.
                rest = picture[row, column, channel] * (1.0 if row >= ROWS else 1.0 - share)
                picture[row, column, channel] = min(rest + share * max(color[channel] - 1.5, 0.0), 255.0)


@compiled
def draw_bar(picture: np.ndarray, text: np.ndarray, meters: np.ndarray, colors: np.ndarray) -> None:
    """Draw the black bar with the score ``text`` (12, 12, 3) and the indicators over ``picture``.

    meters: the values of the indicators (7,): speed, rotation speed of the four wheels, steering angle, turning speed;
    colors: theirs (7, 3).
    """
    for row in range(ROWS, SIZE):
        for column in range(SIZE):
            for channel in range(3):
                written = column < text.shape[1]
                picture[row, column, channel] = text[row - ROWS, column, channel] if written else 0
    s, h = WINDOW_W / 40.0, WINDOW_H / 40.0
    for i in range(len(meters)):
        value = meters[i]
        if abs(value) <= 1e-4:
            continue
        if i < 5:  # columns that rise from the bottom
            place = 5 if i == 0 else 6 + i
            x0, x1 = place * s, (place + 1) * s
            y0, y1 = WINDOW_H - (h + h * (0.02 if i == 0 else 0.01) * value), WINDOW_H - h
            # A column of the window that belongs to two wheels shows the right one.
            if 0 < i < 4 and meters[i + 1] >= value:
                x1 -= 1.0
        else:  # bars to the left or the right of the middle
            place = 20 if i == 5 else 30
            x0, x1 = place * s, (place + (-10.0 if i == 5 else -0.8) * value) * s
            y0, y1 = WINDOW_H - 4 * h, WINDOW_H - 2 * h
        _draw_box(picture, float(int(x0)), float(int(x1)), float(int(y0)), float(int(y1)), colors[i])
