"""The areas that polygons cover in each pixel of CarRacing's small picture, computed exactly.

An edge adds, to the pixels that it crosses, the area to its right within its rows, positive for edges in one direction
and negative for those in the other. After summing each row from left to right, every pixel holds the area that the
polygon covers in it. Sums are whole numbers of a millionth of a pixel, because processors add these one after the other
four times as fast as floating-point numbers.

The functions are compiled by Numba, as parts of the one that calls them all (picture.py).
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

WINDOW_W, WINDOW_H = 1000.0, 800.0
"""Size of the window on which Gymnasium draws, in pixels."""
SIZE = 96
"""Width and height of the picture."""
ROWS = 84
"""Rows of the picture above the black bar."""
KINDS = 6
"""Number of sums for each pixel. The kinds:"""
# Numba would compile a function once for each Python number that is passed to it, but does so only once for NumPy's.
_numbers: Any = np.arange(KINDS)
FIELD, GRASS, ROAD, SHADE, KERB, WHITE = _numbers

_Function = TypeVar("_Function", bound=Callable[..., Any])
_WHOLE = 1.0 * (1 << 20)  # the area of a pixel
_SHARE = np.float32(1 / _WHOLE)
_EDGES = 2  # columns of a sum beyond the picture, for what an edge in its last column adds to the right


def compiled(function: _Function) -> _Function:
    """The function, compiled by Numba when it is first called."""
    return cast(_Function, numba.njit(function, error_model="numpy"))


def new_areas() -> tuple[np.ndarray, np.ndarray]:
    """Memory for the sums, (ROWS, KINDS, columns) int32, and for which rows of them are in use, (ROWS, KINDS) bool.

    Both are left empty by :func:`sum_row`.
    """
    return np.zeros((ROWS, KINDS, SIZE + _EDGES), np.int32), np.zeros((ROWS, KINDS), np.bool_)


@compiled
def _add_vertical(areas: np.ndarray, used: np.ndarray, kind: int, weight: float, y0: float, y1: float) -> None:
    """An edge at the left border of the picture, from y0 down to y1."""
    row = int(y0)
    while row < y1:
        top = y0 if y0 > row else float(row)
        bottom = y1 if y1 < row + 1 else row + 1.0
        areas[row, kind, 0] += np.int32((bottom - top) * (weight * _WHOLE))
        used[row, kind] = True
        row += 1


@compiled
def add_edge(
    areas: np.ndarray, used: np.ndarray, kind: int, weight: float, x0: float, y0: float, x1: float, y1: float
) -> None:
    """Add the edge from (x0, y0) to (x1, y1), in pixels of the picture, times ``weight``."""
    if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
        weight = -weight
    if y0 == y1 or y1 <= 0.0 or y0 >= ROWS:
        return
    slope = (x1 - x0) / (y1 - y0)
    if y0 < 0.0:
        x0 -= y0 * slope
        y0 = 0.0
    if y1 > ROWS:
        x1 -= (y1 - ROWS) * slope
        y1 = float(ROWS)
    # What is left of the picture acts as if it were on its left border; what is right of it, not at all.
    if x0 < 0.0 or x1 < 0.0:
        if x0 <= 0.0 and x1 <= 0.0:
            _add_vertical(areas, used, kind, weight, y0, y1)
            return
        y = min(max(y0 - x0 / slope, y0), y1)
        if x0 < 0.0:
            _add_vertical(areas, used, kind, weight, y0, y)
            x0, y0 = 0.0, y
        else:
            _add_vertical(areas, used, kind, weight, y, y1)
            x1, y1 = 0.0, y
    if x0 > SIZE or x1 > SIZE:
        if x0 >= SIZE and x1 >= SIZE:
            return
        y = min(max(y0 + (SIZE - x0) / slope, y0), y1)
        if x0 > SIZE:
            x0, y0 = float(SIZE), y
        else:
            x1, y1 = float(SIZE), y
    row, x = int(y0), x0
    while row < y1:
        top = y0 if y0 > row else float(row)
        bottom = y1 if y1 < row + 1 else row + 1.0
        area = (bottom - top) * (weight * _WHOLE)
        # The parts of an edge add up to its whole area, so that those of a polygon's two sides cancel out.
        left_over = np.int32(area)
        next_x = min(max(x + (bottom - top) * slope, 0.0), float(SIZE))
        left, right = (x, next_x) if x < next_x else (next_x, x)
        first, last = int(left), math.ceil(right)
        if last <= first + 1:
            part = np.int32(area * (1.0 + first - 0.5 * (left + right)))
            areas[row, kind, first] += part
            areas[row, kind, first + 1] += left_over - part
        else:
            # The height per column is constant; the sum over columns is the area to the right of a slanted line.
            per_column = area / (right - left)
            covered = 0.0
            for column in range(first, last):
                begin = left - column if left > column else 0.0
                end = right - column if right < column + 1 else 1.0
                # Right of the line within this column, and all of the next columns' width for the part so far.
                share = per_column * (end - begin)
                inside = share * (1.0 - 0.5 * (begin + end))
                part = np.int32(covered + inside)
                areas[row, kind, column] += part
                left_over -= part
                covered = share - inside
            areas[row, kind, last] += left_over
        used[row, kind] = True
        x = next_x
        row += 1


@compiled
def sum_row(areas: np.ndarray, used: np.ndarray, row: int, kind: int, out: np.ndarray) -> bool:
    """Sum a row of one kind from left to right into ``out`` (SIZE,) float32, and empty it; False if it is empty."""
    if not used[row, kind]:
        return False
    used[row, kind] = False
    line = areas[row, kind]
    total = np.int32(0)
    for column in range(SIZE):
        total += line[column]
        line[column] = total
    for column in range(SIZE):
        out[column] = np.float32(line[column]) * _SHARE
    for column in range(SIZE + _EDGES):
        line[column] = np.int32(0)
    return True
