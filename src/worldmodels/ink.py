"""Colours and letters of what is drawn for people, in windows and in files."""

from functools import cache
from typing import Any

BACKGROUND, PANEL, TEXT, QUIET, ACCENT = "#14171c", "#242a33", "#f2f4f7", "#9aa4b2", "#4aa8ff"
"""Dark, so that the panels are what one sees; the accent stays visible for colour-blind people."""


@cache
def window_font(size: int) -> Any:
    """Pygame's own font, capitals about ``size`` pixels high; only while pygame's fonts are open."""
    import pygame

    return pygame.font.Font(None, round(size * 1.25))


def write(screen: Any, text: str, place: tuple[int, int], size: int, color: str, align: float = 0.0) -> int:
    """Write on the base line at ``place`` and return where it ends, in pixels.

    align: which part of the text is at ``place``, 0 its left end, 0.5 its middle, 1 its right end.
    """
    face = window_font(size)
    image = face.render(text, True, color)
    width = int(image.get_width())
    left = place[0] - round(width * align)
    screen.blit(image, (left, place[1] - face.get_ascent()))
    return left + width
