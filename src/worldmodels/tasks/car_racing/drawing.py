"""Draws what the agent sees of CarRacing, 96 x 96 pixels, like Gymnasium but directly at that size.

Gymnasium draws polygons on a window of 1000 x 800 pixels, and shrinks the window. Here the area that each polygon
covers in each of the 96 x 96 pixels is computed instead (coverage.py). What can be seen of the window after shrinking
is kept: corners are whole pixels of the window, polygons reach about half a pixel beyond their corners, and shrinking
makes every colour darker by 2 of 255.
"""

import math
from typing import Any

import numpy as np

from worldmodels.tasks.car_racing.coverage import (
    FIELD,
    GRASS,
    KERB,
    ROAD,
    ROWS,
    SHADE,
    SIZE,
    WHITE,
    WINDOW_H,
    WINDOW_W,
    add_edge,
    compiled,
    sum_row,
)

_SX, _SY = SIZE / WINDOW_W, SIZE / WINDOW_H
_DARKER = np.float32(1.5)
"""What shrinking takes from every colour: 2 where the colour is the same all around, less where colours mix."""
_ZERO, _ONE = np.float32(0), np.float32(1)
_WHITE = np.float32(255)


@compiled
def _to_window(x: float, y: float, camera: np.ndarray) -> tuple[float, float]:
    """A point of the world in the window, in whole pixels (towards zero), as SDL takes it. y points up."""
    cos, sin, zoom = camera[0], camera[1], camera[2]
    return float(int((x * cos - y * sin) * zoom + camera[3])), float(int((x * sin + y * cos) * zoom + camera[4]))


@compiled
def _put(corners: np.ndarray, corner: int, x: float, y: float, camera: np.ndarray) -> None:
    """Put a point of the world into ``corners`` (4, 2), as :func:`_to_window` says."""
    corners[corner, 0], corners[corner, 1] = _to_window(x, y, camera)


@compiled
def _fill(values: np.ndarray, value: Any) -> None:
    """Set all values (n,). Numba needs much longer to compile ``values[:] = value``."""
    for i in range(len(values)):
        values[i] = value


@compiled
def _reach(along_x: float, along_y: float, out_x: float, out_y: float) -> tuple[float, float]:
    """How far a filled and antialiased polygon reaches beyond one of its edges, in pixels of the window.

    (along_x, along_y): the edge's direction; (out_x, out_y): any vector that points out of the polygon. Gymnasium draws
    with SDL_gfx, which fills whole pixels including both ends of every line, and draws antialiased lines around them.
    Averaged over all positions of the corners, this moves steep edges outwards by 5/8 of a pixel horizontally, and
    flat ones with slope s by 1/2 + s^2 / 8 vertically.
    """
    x, y = abs(along_x), abs(along_y)
    if x > y:
        reach = 0.5 + 0.125 * (y / x) ** 2
        return 0.0, reach if out_y > 0.0 else -reach
    return 0.625 if out_x > 0.0 else -0.625, 0.0


@compiled
def _add_quadrangle(
    areas: np.ndarray, used: np.ndarray, kind: int, weight: float, kind2: int, weight2: float, corners: np.ndarray
) -> None:
    """Add a quadrangle with corners (4, 2) in the window; ``weight2`` times its area is added to ``kind2``."""
    doubled = 0.0
    for i in range(4):
        j = (i + 1) & 3
        doubled += corners[i, 0] * corners[j, 1] - corners[j, 0] * corners[i, 1]
    if doubled == 0.0:
        return
    turn = 1.0 if doubled > 0.0 else -1.0
    for i in range(4):
        j = (i + 1) & 3
        x0, y0 = (corners[i, 0] + 0.5) * _SX, (WINDOW_H - 0.5 - corners[i, 1]) * _SY
        x1, y1 = (corners[j, 0] + 0.5) * _SX, (WINDOW_H - 0.5 - corners[j, 1]) * _SY
        add_edge(areas, used, kind, weight * turn, x0, y0, x1, y1)
        if weight2 != 0.0:
            add_edge(areas, used, kind2, weight2 * turn, x0, y0, x1, y1)


@compiled
def _enlarge(corners: np.ndarray, larger: np.ndarray) -> None:
    """Move the sides of a quadrangle (4, 2) outwards by their reach, and intersect them again."""
    doubled = 0.0
    for i in range(4):
        j = (i + 1) & 3
        doubled += corners[i, 0] * corners[j, 1] - corners[j, 0] * corners[i, 1]
    turn = 1.0 if doubled > 0.0 else -1.0
    for i in range(4):
        h, j = (i + 3) & 3, (i + 1) & 3
        ux, uy = corners[i, 0] - corners[h, 0], corners[i, 1] - corners[h, 1]
        vx, vy = corners[j, 0] - corners[i, 0], corners[j, 1] - corners[i, 1]
        ox, oy = _reach(ux, uy, uy * turn, -ux * turn)
        wx, wy = _reach(vx, vy, vy * turn, -vx * turn)
        cross = ux * vy - uy * vx
        if cross != 0.0:
            along = ((wx - ox) * vy - (wy - oy) * vx) / cross
            # Sharp corners are not drawn out to a point.
            wx, wy = min(max(ox + along * ux, -1.5), 1.5), min(max(oy + along * uy, -1.5), 1.5)
        larger[i, 0], larger[i, 1] = corners[i, 0] + wx, corners[i, 1] + wy


@compiled
def _add_ground(areas: np.ndarray, used: np.ndarray, camera: np.ndarray, field: float, grass: float) -> bool:
    """Add the squares of grass, and the playing field if its border is near enough to be seen (then: True)."""
    cos, sin, zoom = camera[0], camera[1], camera[2]
    low_x, high_x, low_y, high_y = math.inf, -math.inf, math.inf, -math.inf
    for x in (-3.0 - camera[3], WINDOW_W + 3.0 - camera[3]):
        for y in (-3.0 - camera[4], WINDOW_H + 3.0 - camera[4]):
            world_x, world_y = (x * cos + y * sin) / zoom, (y * cos - x * sin) / zoom
            low_x, high_x = min(low_x, world_x), max(high_x, world_x)
            low_y, high_y = min(low_y, world_y), max(high_y, world_y)
    corners, larger = np.empty((4, 2)), np.empty((4, 2))
    # Squares begin at every second multiple of their size, in [-20, 20).
    for i in range(max(-10, math.floor(low_x / grass / 2)), min(10, math.floor(high_x / grass / 2) + 1)):
        for j in range(max(-10, math.floor(low_y / grass / 2)), min(10, math.floor(high_y / grass / 2) + 1)):
            for corner in range(4):
                x, y = 2 * i + (corner == 1 or corner == 2), 2 * j + (corner >= 2)
                _put(corners, corner, x * grass, y * grass, camera)
            _enlarge(corners, larger)
            _add_quadrangle(areas, used, GRASS, 1.0, GRASS, 0.0, larger)
    if min(low_x, low_y) > -field and max(high_x, high_y) < field:
        return False
    for corner in range(4):
        x, y = field if corner == 1 or corner == 2 else -field, field if corner >= 2 else -field
        _put(corners, corner, x, y, camera)
    _enlarge(corners, larger)
    _add_quadrangle(areas, used, FIELD, 1.0, FIELD, 0.0, larger)
    return True


@compiled
def _near(points: np.ndarray, camera: np.ndarray, margin: float) -> np.ndarray:
    """Which points (n, 2) of the world are in the visible part of the window, or up to ``margin`` pixels outside."""
    near = np.empty(len(points), np.bool_)
    for i in range(len(points)):
        x = (points[i, 0] * camera[0] - points[i, 1] * camera[1]) * camera[2] + camera[3]
        y = (points[i, 0] * camera[1] + points[i, 1] * camera[0]) * camera[2] + camera[4]
        near[i] = -margin < x < WINDOW_W + margin and 100.0 - margin < y < WINDOW_H + margin
    return near


@compiled
def _add_road(
    areas: np.ndarray,
    used: np.ndarray,
    camera: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    tiles: np.ndarray,
    base: float,
) -> None:
    """Add the tiles of the road: tile i lies between the points i - 1 and i of its left and right side (n, 2).

    Only the sides reach outwards. The ends are common to two tiles, so that the road has no seams.
    """
    count = len(left)
    near_left, near_right = _near(left, camera, 230.0), _near(right, camera, 230.0)
    corners = np.empty((4, 2))
    for i in range(count):
        h = i - 1 if i > 0 else count - 1
        if not (near_left[i] or near_right[i] or near_left[h] or near_right[h]):
            continue
        for corner in range(4):
            at = i if corner == 0 or corner == 3 else h
            ahead, behind = (at + 1 if at < count - 1 else 0), (at - 1 if at > 0 else count - 1)
            side, other = (left, right) if corner < 2 else (right, left)
            x, y = _to_window(side[at, 0], side[at, 1], camera)
            ahead_x, ahead_y = _to_window(side[ahead, 0], side[ahead, 1], camera)
            behind_x, behind_y = _to_window(side[behind, 0], side[behind, 1], camera)
            other_x, other_y = _to_window(other[at, 0], other[at, 1], camera)
            reach_x, reach_y = _reach(ahead_x - behind_x, ahead_y - behind_y, x - other_x, y - other_y)
            corners[corner, 0], corners[corner, 1] = x + reach_x, y + reach_y
        _add_quadrangle(areas, used, ROAD, 1.0, SHADE, math.floor(tiles[i, 0]) - base, corners)


@compiled
def _add_kerbs(
    areas: np.ndarray, used: np.ndarray, camera: np.ndarray, kerbs: np.ndarray, is_white: np.ndarray
) -> None:
    """Add the kerbs (k, 4, 2)."""
    near = _near(np.ascontiguousarray(kerbs[:, 0]), camera, 90.0)
    corners, larger = np.empty((4, 2)), np.empty((4, 2))
    for i in range(len(kerbs)):
        if near[i]:
            for corner in range(4):
                _put(corners, corner, kerbs[i, corner, 0], kerbs[i, corner, 1], camera)
            _enlarge(corners, larger)
            _add_quadrangle(areas, used, KERB, 1.0, WHITE, is_white[i], larger)


@compiled
def draw_track(
    picture: np.ndarray,
    memory: tuple[np.ndarray, np.ndarray],
    camera: np.ndarray,
    ground: tuple[float, float],
    road: tuple[np.ndarray, np.ndarray, np.ndarray],
    kerbs: tuple[np.ndarray, np.ndarray],
    colors: np.ndarray,
) -> None:
    """Draw ground, road and kerbs into the rows of ``picture`` above the bar.

    picture: (96, 96, 3) uint8; memory: of :func:`new_areas`; camera: cosine and sine of its angle, zoom, and where the
    world's origin is in the window; ground: half the size of the playing field, the size of a square of grass; road:
    left and right side (n, 2) and the colours of the tiles (n, 3); kerbs: corners (k, 4, 2) and 1 for white, 0 for red;
    colors: of field, grass and road (3, 3) float32.
    """
    areas, used = memory
    bounded = _add_ground(areas, used, camera, ground[0], ground[1])
    _add_road(areas, used, camera, road[0], road[1], road[2], colors[2, 0])
    _add_kerbs(areas, used, camera, kerbs[0], kerbs[1])
    area, part = np.empty(SIZE, np.float32), np.empty(SIZE, np.float32)
    line = np.empty((3, SIZE), np.float32)
    for row in range(ROWS):
        for channel in range(3):
            _fill(line[channel], colors[0, channel])
        if bounded:
            if sum_row(areas, used, row, FIELD, area):
                for channel in range(3):
                    for x in range(SIZE):
                        line[channel, x] *= min(area[x], _ONE)
            else:
                for channel in range(3):
                    _fill(line[channel], _ZERO)
        if sum_row(areas, used, row, GRASS, area):
            for channel in range(3):
                more = colors[1, channel] - colors[0, channel]
                for x in range(SIZE):
                    line[channel, x] += more * min(area[x], _ONE)
        if sum_row(areas, used, row, ROAD, area):
            if not sum_row(areas, used, row, SHADE, part):
                _fill(part, _ZERO)
            _average(area, part)
            for channel in range(3):
                for x in range(SIZE):
                    line[channel, x] += area[x] * (colors[2, channel] - line[channel, x]) + part[x]
        if sum_row(areas, used, row, KERB, area):
            if not sum_row(areas, used, row, WHITE, part):
                _fill(part, _ZERO)
            _average(area, part)
            for x in range(SIZE):
                line[0, x] += area[x] * (_WHITE - line[0, x])
                line[1, x] += _WHITE * part[x] - area[x] * line[1, x]
                line[2, x] += _WHITE * part[x] - area[x] * line[2, x]
        for channel in range(3):
            for x in range(SIZE):
                line[channel, x] = max(line[channel, x] - _DARKER, _ZERO)
        for x in range(SIZE):
            picture[row, x, 0] = np.uint8(line[0, x])
            picture[row, x, 1] = np.uint8(line[1, x])
            picture[row, x, 2] = np.uint8(line[2, x])


@compiled
def _average(area: np.ndarray, part: np.ndarray) -> None:
    """Limit areas (n,) to 1, and divide what overlapping polygons add up to in ``part`` (n,) by their area."""
    for x in range(len(area)):
        if area[x] > _ONE:
            part[x] /= area[x]
            area[x] = _ONE
