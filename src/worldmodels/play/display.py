"""pygame, and whether windows can be seen on this machine."""

import contextlib
import os
import sys
from typing import Any

from worldmodels.core.errors import UserError

_INVISIBLE = ("offscreen", "dummy")
"""SDL's drivers that show nothing. SDL chooses "offscreen" by itself where no screen answers."""
_INSTEAD = "use worldmodels watch or worldmodels record, which make a film, or a machine with a screen"


def load_pygame() -> Any:
    """pygame; a :class:`UserError` if it is not installed."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        raise UserError('playing needs pygame: pip install "worldmodels[play]"') from None
    return pygame


def open_display() -> Any:
    """pygame, with its display initialised; the caller calls ``pygame.quit()``.

    Raises :class:`UserError` if pygame is not installed, and if there is no screen, unless SDL_VIDEODRIVER asks for a
    driver that shows nothing.
    """
    pygame = load_pygame()
    if not _is_named():
        raise UserError(f"no screen: DISPLAY is not set; {_INSTEAD}")
    try:
        pygame.display.init()
    except pygame.error as error:
        raise UserError(f"no window can be opened ({error}); {_INSTEAD}") from None
    if "SDL_VIDEODRIVER" not in os.environ and pygame.display.get_driver() in _INVISIBLE:
        pygame.display.quit()
        name = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        where = f" at DISPLAY={name}" if name else ""
        raise UserError(f"no screen answers{where}; {_INSTEAD}")
    return pygame


def has_display() -> bool:
    """Whether pygame is installed and a window could be seen."""
    if not _is_named():
        return False
    with contextlib.suppress(UserError):
        pygame = open_display()
        pygame.display.quit()
        return True
    return False


def _is_named() -> bool:
    """Whether the environment names a screen, which only Linux needs."""
    names = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in names)
