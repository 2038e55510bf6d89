"""The window that shows viewers, made with pygame. It runs without a screen if SDL_VIDEODRIVER is "dummy"."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.play.choices import viewer_of
from worldmodels.play.dream import DreamViewer, agent_that_dreams
from worldmodels.play.viewer import Viewer
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

_NAMES = {
    "LEFT": "left",
    "RIGHT": "right",
    "UP": "up",
    "DOWN": "down",
    "RETURN": "enter",
    "KP_ENTER": "enter",
    "ESCAPE": "escape",
    "BACKSPACE": "backspace",
    "PLUS": "plus",
    "KP_PLUS": "plus",
    "EQUALS": "plus",
    "MINUS": "minus",
    "KP_MINUS": "minus",
}
"""Viewers' names of pygame's keys. On keyboards where plus is shift and equals, equals alone counts as plus."""


def play(
    task: Task,
    seed: int,
    save: Path | None = None,
    agent: str | None = None,
    tick: Callable[[Viewer], None] | None = None,
) -> list[float]:
    """Open the window and play until it is closed; returns the score of every finished episode.

    seed: of the first episode; save: directory of an episode store, to which finished episodes are added; agent: the
    one that takes over on the key "a" (None: the task's shipped agent); tick: called before every picture (tests press
    keys there). Raises :class:`UserError` if pygame or a screen is missing.
    """
    playing_of(task)
    return show(lambda: viewer_of(task, seed, save, agent), tick)


def play_dream(
    task: Task,
    seed: int,
    agent: str | None = None,
    temperature: float = 1.0,
    tick: Callable[[Viewer], None] | None = None,
) -> list[float]:
    """Open the window and play in dreams until it is closed; returns the score of every finished dream.

    agent: whose dreams they are (None: the task's shipped agent); temperature: 1 leaves M's predictions as they are;
    tick and errors: as for :func:`play`.
    """
    dreaming = agent_that_dreams(task, agent, temperature)
    return show(lambda: DreamViewer(task, seed, dreaming, temperature), tick)


def show(make: Callable[[], Viewer], tick: Callable[[Viewer], None] | None = None) -> list[float]:
    """Show the viewer that ``make`` returns in a window until it is closed; returns its scores."""
    pygame = _pygame()
    try:
        with contextlib.closing(make()) as viewer:
            screen = _opened(pygame, viewer)
            names = _key_names(pygame)
            clock = pygame.time.Clock()
            while viewer.running:
                interrupt.check()
                if tick is not None:
                    tick(viewer)
                for event in pygame.event.get():
                    _tell(viewer, event, names, pygame)
                viewer.advance()
                _blit(screen, viewer.picture(), pygame)
                pygame.display.flip()
                if tick is None:
                    clock.tick(viewer.frames_per_second)
            return viewer.scores
    finally:
        pygame.quit()


def _pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        raise UserError('playing needs pygame: pip install "worldmodels[play]"') from None
    screenless = not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and screenless and "SDL_VIDEODRIVER" not in os.environ:
        raise UserError("no screen: DISPLAY is not set; play on a machine with a screen")
    return pygame


def _opened(pygame: Any, viewer: Viewer) -> Any:
    try:
        pygame.display.init()
        screen = pygame.display.set_mode(viewer.size)
    except pygame.error as error:
        raise UserError(f"no window can be opened ({error}); play on a machine with a screen") from None
    pygame.display.set_caption(f"worldmodels: {viewer.title}")
    return screen


def _key_names(pygame: Any) -> dict[int, str]:
    names = {getattr(pygame, f"K_{key}"): name for key, name in _NAMES.items()}
    names |= {getattr(pygame, f"K_{letter}"): letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"}
    return names | {getattr(pygame, f"K_KP{digit}"): str(digit) for digit in range(10)}


def _tell(viewer: Viewer, event: Any, names: dict[int, str], pygame: Any) -> None:
    """Translate an event of pygame into a call of the viewer."""
    if event.type == pygame.QUIT:
        viewer.quit()
    elif event.type == pygame.WINDOWFOCUSLOST:
        viewer.lose_focus()
    elif event.type == pygame.MOUSEMOTION:
        viewer.point(event.pos)
    elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
        viewer.click(event.pos)
    elif event.type == pygame.KEYDOWN:
        # On keyboard layouts where digits and plus need the shift key, only the unicode text identifies them.
        typed = getattr(event, "unicode", "").replace("+", "plus").replace("-", "minus")
        viewer.press(names.get(event.key, typed))
    elif event.type == pygame.KEYUP and event.key in names:
        viewer.release(names[event.key])


def _blit(screen: Any, picture: np.ndarray, pygame: Any) -> None:
    height, width = picture.shape[:2]
    screen.blit(pygame.image.frombuffer(picture.tobytes(), (width, height), "RGB"), (0, 0))
