"""Colours and letters of the pictures that are drawn for people."""

from functools import cache, lru_cache

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, PANEL, TEXT, QUIET, ACCENT = "#14171c", "#242a33", "#f2f4f7", "#9aa4b2", "#4aa8ff"
"""Dark, so that the panels are what one sees; the accent stays visible for colour-blind people."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at ``size`` pixels."""
    return ImageFont.load_default(size)


@lru_cache(2048)
def text_width(text: str, size: int) -> int:
    """Width of a line in pixels."""
    return round(font(size).getlength(text))


def write(image: Image.Image, text: str, place: tuple[int, int], size: int, color: str, align: float = 0.0) -> int:
    """Write a line with its base line at ``place`` (x, y) and return where it ends, x in pixels.

    align: which part of the line is at ``place``: 0 its left end, 0.5 its middle, 1 its right end.
    """
    left = place[0] - round(text_width(text, size) * align)
    if text:
        mask, across, down = _letters(text, size)
        image.paste(color, (left + across, place[1] + down), mask)
    return left + text_width(text, size)


@lru_cache(2048)
def _letters(text: str, size: int) -> tuple[Image.Image, int, int]:
    """A line as a mask, and where its upper left corner is from the beginning of its base line.

    Windows draw the same few words many times a second, and making the letters takes most of the time.
    """
    left, top, right, bottom = (round(edge) for edge in font(size).getbbox(text, anchor="ls"))
    mask = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), text, 255, font(size), anchor="ls")
    return mask, left, top
