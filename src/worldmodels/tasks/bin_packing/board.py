"""The board on which people play bin packing: a bin of every level side by side, and the current item.

Legend: B levels (the capacity).
"""

import numpy as np
from PIL import Image, ImageDraw

from worldmodels.core.theme import ACCENT, BACKGROUND, PANEL, QUIET, TEXT, write

_LEFT, _RIGHT = 190, 1180
_TOP, _BOTTOM = 158, 460
_CLOSED, _ABSENT, _POINTED = "#465a8c", "#39424f", "#1d222a"
"""Colours of bins that have no room for the item (as in the agent's picture), of the numbers of levels without a bin,
and of the background of the level that the mouse or the typed number points to."""
_PIP, _MOST_PIPS = 7, 12
"""Height in pixels of the marks that count bins, and the largest number of marks that are drawn."""


class BinsBoard:
    """One column per level 0 to B-1: a bin filled to that level, how many there are, and the item's outline in it."""

    size = (1200, 520)

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._unit = (_BOTTOM - _TOP) / capacity
        self._column = (_RIGHT - _LEFT) / capacity
        self._width = min(64, round(self._column * 0.7))

    def choice_at(self, place: tuple[int, int]) -> int | None:
        """The level whose column is at the pixel ``place`` (x, y), or None."""
        across, down = place
        inside = _LEFT <= across < _RIGHT and 0 <= down < self.size[1]
        return int((across - _LEFT) / self._column) if inside else None

    def objection(self, state: np.ndarray, choice: int) -> str:
        """One line that says that there is no bin of this level or no room in it."""
        item = int(state[-1])
        if choice + item > self._capacity:
            return f"an item of size {item} does not fit into level {choice}: a bin holds {self._capacity}"
        return f"no open bin has level {choice}; choose a blue one, or 0 for a new bin"

    def draw(self, state: np.ndarray, action_mask: np.ndarray, pointed: int | None) -> Image.Image:
        """The state as a picture: bins with room for the item are blue, with its outline on top of their content."""
        image = Image.new("RGB", self.size, BACKGROUND)
        item = int(state[-1])
        write(image, f"bins hold {self._capacity}", (24, 40), 17, QUIET)
        write(image, "open bins, from empty to full; those that take the item are blue", (_LEFT, 40), 17, QUIET)
        write(image, "score: minus the free space of all open bins", (_RIGHT, 40), 17, QUIET, 1.0)
        self._item(image, item)
        for level, count in enumerate(state[:-1].tolist()):
            self._level(image, level, count, item, bool(action_mask[level]), level == pointed)
        return image

    def _item(self, image: Image.Image, size: int) -> None:
        high = round(size * self._unit)
        _fill(image, TEXT, 24, _BOTTOM - high, self._width, high)
        write(image, "the item", (24, _BOTTOM + 22), 17, QUIET)
        write(image, f"{size}", (24, _BOTTOM + 50), 30, TEXT)

    def _level(self, image: Image.Image, level: int, count: int, item: int, takes: bool, pointed: bool) -> None:
        draw = ImageDraw.Draw(image)
        middle = round(_LEFT + (level + 0.5) * self._column)
        left = middle - self._width // 2
        if pointed:
            column = round(_LEFT + level * self._column)
            _fill(image, _POINTED, column, 56, round(self._column), self.size[1] - 56)
        high = round(level * self._unit)
        if count:
            _fill(image, ACCENT if takes else _CLOSED, left, _BOTTOM - high, self._width, high)
        if takes:
            onto = round(item * self._unit)
            corner = (left, _BOTTOM - high - onto)
            opposite = (left + self._width - 1, _BOTTOM - high - 1)
            draw.rectangle((corner, opposite), TEXT if pointed else None, None if pointed else ACCENT, 2)
        open_here = count > 0 or level == 0
        walls = (TEXT if takes else QUIET) if open_here else PANEL
        right = left + self._width + 1
        draw.line([(left - 2, _TOP), (left - 2, _BOTTOM), (right, _BOTTOM), (right, _TOP)], walls, 2)
        color = TEXT if takes else QUIET if open_here else _ABSENT
        write(image, str(level), (middle, _BOTTOM + 26), 19 if takes else 17, color, 0.5)
        if level == 0:
            write(image, "new", (middle, _BOTTOM + 46), 15, TEXT, 0.5)
        elif count:
            self._count(image, middle, count, color, ACCENT if takes else _CLOSED)

    def _count(self, image: Image.Image, middle: int, count: int, color: str, pips: str) -> None:
        shown = min(count, _MOST_PIPS)
        for pip in range(shown):
            _fill(image, pips, middle - self._width // 2, _TOP - 12 - pip * _PIP, self._width, _PIP - 2)
        write(image, str(count), (middle, _TOP - 12 - shown * _PIP), 17, color, 0.5)


def _fill(image: Image.Image, color: str, left: int, top: int, width: int, height: int) -> None:
    image.paste(color, (left, top, left + width, top + height))
