"""Colours and text of pictures, videos and windows."""

from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, PANEL, TEXT, QUIET, ACCENT = "#14171c", "#242a33", "#f2f4f7", "#9aa4b2", "#4aa8ff"
"""A dark theme, so that the panels stand out; the accent colour is visible to colour-blind people."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's default font at ``size`` pixels."""
    return ImageFont.load_default(size)


@lru_cache(2048)
def text_width(text: str, size: int) -> int:
    """Width of a line of text in pixels."""
    return round(font(size).getlength(text))


def write(image: Image.Image, text: str, place: tuple[int, int], size: int, color: str, align: float = 0.0) -> int:
    """Write a line of text with its baseline at ``place`` (x, y) in pixels; return the x at which the line ends.

    align: the part of the line that is at ``place``: 0 its left end, 0.5 its middle, 1 its right end.
    """
    left = place[0] - round(text_width(text, size) * align)
    if text:
        mask, across, down = _letters(text, size)
        image.paste(color, (left + across, place[1] + down), mask)
    return left + text_width(text, size)


@lru_cache(2048)
def _letters(text: str, size: int) -> tuple[Image.Image, int, int]:
    """A rendered line as a mask, and the offset (x, y) of its upper left corner from the start of its baseline.

    Cached, because windows draw the same few words many times a second and rendering them takes most of the time.
    """
    left, top, right, bottom = (round(edge) for edge in font(size).getbbox(text, anchor="ls"))
    mask = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, font(size), anchor="ls")
    return mask, left, top
