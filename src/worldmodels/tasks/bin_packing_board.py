"""Bin packing for people who play it: a bin of every level side by side, and the item that waits.

Legend: B levels (the capacity).
"""

from typing import Any

import numpy as np

from worldmodels.ink import ACCENT, PANEL, QUIET, TEXT, write

_LEFT, _RIGHT = 190, 1180
_TOP, _BOTTOM = 158, 460
_CLOSED, _ABSENT, _POINTED = "#465a8c", "#39424f", "#1d222a"
"""Content of bins that the item does not fit into, as in the agent's picture; numbers of levels that no bin has; ground
of the level thought of."""
_PIP, _MOST_PIPS = 7, 12


class BinsBoard:
    """One column per level 0 to B-1: a bin filled to that level, how many there are, and where the item would reach."""

    size = (1200, 520)

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._unit = (_BOTTOM - _TOP) / capacity
        self._column = (_RIGHT - _LEFT) / capacity
        self._width = min(64, round(self._column * 0.7))

    def choice_at(self, place: tuple[int, int]) -> int | None:
        """The level whose column is at ``place``."""
        across, down = place
        inside = _LEFT <= across < _RIGHT and 0 <= down < self.size[1]
        return int((across - _LEFT) / self._column) if inside else None

    def objection(self, state: np.ndarray, choice: int) -> str:
        """No such bin, or no room in it."""
        item = int(state[-1])
        if choice + item > self._capacity:
            return f"an item of size {item} does not fit into level {choice}: a bin holds {self._capacity}"
        return f"no open bin has level {choice}; choose a blue one, or 0 for a new bin"

    def draw(self, screen: Any, state: np.ndarray, allowed: np.ndarray, pointed: int | None) -> None:
        """Bins that take the item are blue, with the item's outline on top of what they hold."""
        item = int(state[-1])
        write(screen, f"bins hold {self._capacity}", (24, 40), 17, QUIET)
        write(screen, "open bins, from empty to full; those that take the item are blue", (_LEFT, 40), 17, QUIET)
        write(screen, "score: minus the free space of all open bins", (_RIGHT, 40), 17, QUIET, 1.0)
        self._item(screen, item)
        for level, count in enumerate(state[:-1].tolist()):
            self._level(screen, level, count, item, bool(allowed[level]), level == pointed)

    def _item(self, screen: Any, size: int) -> None:
        high = round(size * self._unit)
        screen.fill(TEXT, (24, _BOTTOM - high, self._width, high))
        write(screen, "the item", (24, _BOTTOM + 22), 17, QUIET)
        write(screen, f"{size}", (24, _BOTTOM + 50), 30, TEXT)

    def _level(self, screen: Any, level: int, count: int, item: int, allowed: bool, pointed: bool) -> None:
        import pygame

        middle = round(_LEFT + (level + 0.5) * self._column)
        left = middle - self._width // 2
        if pointed:
            screen.fill(_POINTED, (round(_LEFT + level * self._column), 56, round(self._column), self.size[1] - 56))
        high = round(level * self._unit)
        if count:
            screen.fill(ACCENT if allowed else _CLOSED, (left, _BOTTOM - high, self._width, high))
        if allowed:
            onto = (left, _BOTTOM - high - round(item * self._unit), self._width, round(item * self._unit))
            pygame.draw.rect(screen, TEXT if pointed else ACCENT, onto, 0 if pointed else 2)
        open_here = count > 0 or level == 0
        walls = (TEXT if allowed else QUIET) if open_here else PANEL
        corners = ((left - 2, _TOP), (left - 2, _BOTTOM), (left + self._width + 1, _BOTTOM))
        pygame.draw.lines(screen, walls, False, [*corners, (left + self._width + 1, _TOP)], 2)
        color = TEXT if allowed else QUIET if open_here else _ABSENT
        write(screen, str(level), (middle, _BOTTOM + 26), 19 if allowed else 17, color, 0.5)
        if level == 0:
            write(screen, "new", (middle, _BOTTOM + 46), 15, TEXT, 0.5)
        elif count:
            self._count(screen, middle, count, color, ACCENT if allowed else _CLOSED)

    def _count(self, screen: Any, middle: int, count: int, color: str, pips: str) -> None:
        shown = min(count, _MOST_PIPS)
        for pip in range(shown):
            screen.fill(pips, (middle - self._width // 2, _TOP - 12 - pip * _PIP, self._width, _PIP - 2))
        write(screen, str(count), (middle, _TOP - 12 - shown * _PIP), 17, color, 0.5)
