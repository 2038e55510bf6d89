"""Scenes, which are what a viewer shows as plain data, and the painter that draws them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from worldmodels.core.theme import ACCENT, BACKGROUND, QUIET, TEXT, text_width, write
from worldmodels.render.picture import resized

_MARGIN, _HEAD = 24, 48
_READINGS, _LINE = 56, 36
"""Heights in pixels of the row of readings and of each row of text beneath it."""
_NAME_SIZE, _VALUE_SIZES = 18, ((28, 42), (24, 28), (20, 16), (16, 12), (13, 8))
"""Text sizes of the readings: of names, and of values with the gap after them; the largest pair that fits is used."""
_SMALLEST = 13
"""The smallest text size that can be read."""
_NOTE, _NOTE_SIZE = 34, 18
"""Height of a note and size of its text."""
_BAND = 72
"""Height of the band on which the banner is written."""


@dataclass(frozen=True)
class Panel:
    """A picture (H, W, 3) uint8 with a line of text above it."""

    picture: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Scene:
    """Everything that a viewer shows at one moment.

    title: of the world; readings: pairs of name and value; message: what has just happened, or empty; help: what the
    keys do; banner: why the world is paused or over, None while it runs; note: a remark in a corner of the picture, or
    empty.
    """

    title: str
    panels: tuple[Panel, ...]
    readings: tuple[tuple[str, str], ...]
    message: str
    help: str
    banner: str | None
    note: str = ""


class ScenePainter:
    """Draws the scenes of one viewer as pictures (H, W, 3) uint8, all of the same ``size`` (width, height).

    panel: width and height of every panel; columns: how many are side by side; captions: whether panels have captions;
    message_line: whether the message has its own row, instead of replacing the help.
    """

    def __init__(
        self, panel: tuple[int, int], columns: int = 1, captions: bool = False, message_line: bool = False
    ) -> None:
        self._panel, self._head, self._message_line = panel, _HEAD if captions else 0, message_line
        foot = _READINGS + _LINE * (2 if message_line else 1)
        self.size = (columns * panel[0], self._head + panel[1] + foot)
        self._plain = np.array(Image.new("RGB", self.size, BACKGROUND))
        self._widths: dict[str, int] = {}
        self._strips: dict[str, tuple[Any, np.ndarray]] = {}

    def draw(self, scene: Scene) -> np.ndarray:
        """The picture of a scene, a new array."""
        picture = self._plain.copy()
        width, height = self._panel
        bottom = self._head + height
        if self._head:
            captions = tuple(panel.caption for panel in scene.panels)
            picture[: self._head] = self._strip("head", captions, self._write_captions, self._head)
        for column, panel in enumerate(scene.panels):
            left = column * width
            picture[self._head : bottom, left : left + width] = resized(panel.picture, self._panel)
        texts = (scene.readings, scene.message, scene.help)
        picture[bottom:] = self._strip("foot", texts, self._write_foot, self.size[1] - bottom)
        if scene.note:
            width = min(self.size[0], text_width(scene.note, _NOTE_SIZE) + 2 * _MARGIN)
            picture[self._head : self._head + _NOTE, -width:] = self._note(scene.note, width)
        if scene.banner is not None:
            top = self.size[1] // 3 - _BAND // 2
            picture[top : top + _BAND] = self._banner(picture[top : top + _BAND], scene.banner)
        return picture

    def _strip(self, name: str, content: Any, write_on: Callable[[Image.Image, Any], None], height: int) -> np.ndarray:
        """A strip of text over the whole width, drawn again only when its content has changed."""
        strip = self._strips.get(name)
        if strip is None or strip[0] != content:
            image = Image.new("RGB", (self.size[0], height), BACKGROUND)
            write_on(image, content)
            strip = self._strips[name] = content, np.asarray(image)
        return strip[1]

    def _write_captions(self, image: Image.Image, captions: tuple[str, ...]) -> None:
        for column, caption in enumerate(captions):
            text, size = fitted(caption, 24, self._panel[0] - 2 * _MARGIN)
            write(image, text, (column * self._panel[0] + _MARGIN, 34), size, QUIET)

    def _write_foot(self, image: Image.Image, texts: tuple[tuple[tuple[str, str], ...], str, str]) -> None:
        readings, message, helping = texts
        width = self.size[0] - 2 * _MARGIN
        self._write_readings(image, readings)
        lines = [(message, 20, ACCENT), (helping, 17, QUIET)]
        if not self._message_line:
            lines = [(message, 17, ACCENT) if message else (helping, 17, QUIET)]
        for row, (line, largest, color) in enumerate(lines):
            _write_line(image, line, _READINGS + 18 + row * _LINE, largest, color, width)

    def _write_readings(self, image: Image.Image, readings: tuple[tuple[str, str], ...]) -> None:
        """Write names and values from left to right, at places that do not change with the length of the values."""
        for size, gap in _VALUE_SIZES:
            widths = [self._width_of(name, value, size) + gap for name, value in readings]
            if sum(widths) - gap <= self.size[0] - 2 * _MARGIN:
                break
        left = _MARGIN
        for (name, value), width in zip(readings, widths, strict=True):
            after = write(image, name, (left, 40), min(size, _NAME_SIZE), QUIET)
            write(image, value, (after + 8, 40), size, TEXT)
            left += width

    def _width_of(self, name: str, value: str, size: int) -> int:
        """The width of a reading in pixels: the largest that it has needed so far."""
        key = f"{name} {size}"
        value_width = max(text_width(value, size), 3 * size // 2)
        width = text_width(name, min(size, _NAME_SIZE)) + 8 + value_width
        self._widths[key] = max(width, self._widths.get(key, 0))
        return self._widths[key]

    def _note(self, text: str, width: int) -> np.ndarray:
        image = Image.new("RGB", (width, _NOTE), BACKGROUND)
        write(image, text, (_MARGIN, _NOTE - 11), _NOTE_SIZE, ACCENT)
        return np.asarray(image)

    def _banner(self, behind: np.ndarray, text: str) -> Image.Image:
        image = Image.fromarray(behind)
        band = Image.blend(image, Image.new("RGB", image.size, BACKGROUND), 0.84)
        shown, size = fitted(text, 34, image.width - 2 * _MARGIN)
        write(band, shown, (image.width // 2, _BAND // 2 + size // 3), size, ACCENT, 0.5)
        return band


def _write_line(image: Image.Image, line: str, base: int, size: int, color: str, width: int) -> None:
    """Write a line, broken in two if it is too long, because the end of an error message says what to do."""
    if text_width(line, _SMALLEST) <= width:
        text, size = fitted(line, size, width)
        write(image, text, (_MARGIN, base), size, color)
        return
    end = len(line)
    while text_width(line[:end], _SMALLEST) > width:
        end = max(line.rfind(" ", 0, end), end - 40)
    for text, line_base in ((line[:end], base - 9), (line[end:].strip(), base + 8)):
        write(image, fitted(text, _SMALLEST, width)[0], (_MARGIN, line_base), _SMALLEST, color)


@lru_cache(256)
def fitted(text: str, size: int, width: int) -> tuple[str, int]:
    """A line and its text size, reduced until the line is at most ``width`` pixels wide; then the line is cut."""
    while size > _SMALLEST and text_width(text, size) > width:
        size -= 1
    if text_width(text, size) > width:
        while text and text_width(text + "...", size) > width:
            text = text[:-1]
        text += "..."
    return text, size
