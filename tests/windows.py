"""Events of the window, for the tests that play in it."""

from collections.abc import Callable
from typing import Any

import pygame

from worldmodels.play.viewer import Viewer


def key_down(key: int, unicode: str = "") -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYDOWN, key=key, unicode=unicode)


def key_up(key: int) -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYUP, key=key)


def script(*moves: Callable[[Any], object]) -> Callable[[Viewer], None]:
    """Does the moves, one before each picture, and closes the window."""
    left = list(moves)

    def tick(viewer: Viewer) -> None:
        if left:
            left.pop(0)(viewer)
        else:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    return tick


def pressing(*keys: int) -> Callable[[Any], object]:
    """A move that presses keys, which stay down."""

    def press(viewer: Viewer) -> None:
        for key in keys:
            pygame.event.post(key_down(key))

    return press
