"""Draws the numbers of a moment: score, step and action."""

import numpy as np
from PIL import Image, ImageDraw

from worldmodels.core.theme import ACCENT, PANEL, QUIET, TEXT, text_width, write
from worldmodels.tasks.base import Playing

_MOST_BARS = 6
"""If an action has more numbers, only the name of the largest is written, because bars would have too little room."""
_NAME, _VALUE = 20, 30


def write_number(image: Image.Image, left: int, base: int, name: str, value: str) -> None:
    """Write a name and its value with their baseline at ``base``."""
    write(image, name, (left, base), _NAME, QUIET)
    write(image, value, (left + 70, base), _VALUE, TEXT)


class ActionPainter:
    """Draws actions of one world: a bar per number, or the name of the choice if there are many."""

    def __init__(self, playing: Playing) -> None:
        self._names, self._ranges = playing.action_names, playing.action_ranges
        self._label = max(text_width(name, _NAME) for name in self._names)

    def draw(self, image: Image.Image, left: int, right: int, base: int, action: np.ndarray) -> None:
        """Draw the numbers (A,) that encode an action for M between ``left`` and ``right``; base: of the text."""
        if len(self._names) > _MOST_BARS:
            write(image, "action", (left, base), _NAME, QUIET)
            write(image, self._names[int(action.argmax())], (left + 76, base), _VALUE, TEXT)
            return
        slot = (right - left) / max(3, len(self._names))
        for index, name in enumerate(self._names):
            start = left + index * slot
            write(image, name, (round(start), base), _NAME, QUIET)
            self._bar(image, start + self._label + 14, start + slot - 28, base, float(action[index]), index)

    def _bar(self, image: Image.Image, start: float, end: float, base: int, number: float, index: int) -> None:
        """A bar from zero to ``number``, on a scale of its whole range."""
        low, high = self._ranges[index]
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((start, base - 16, end, base + 2), 4, PANEL)
        zero, value = (start + (end - start) * _share(one, low, high) for one in (0.0, number))
        if abs(value - zero) >= 1:
            draw.rectangle((min(zero, value), base - 16, max(zero, value), base + 2), ACCENT)
        if low < 0 < high:
            draw.line((zero, base - 20, zero, base + 6), QUIET, 2)


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
