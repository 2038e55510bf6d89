"""The window that shows viewers, made with pygame. It runs without a screen if SDL_VIDEODRIVER is "dummy"."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.theme import BACKGROUND
from worldmodels.play.choices import viewer_of
from worldmodels.play.display import open_display
from worldmodels.play.dream import DreamViewer, agent_that_dreams
from worldmodels.play.gamepad import Gamepad
from worldmodels.play.pace import Pace
from worldmodels.play.viewer import Viewer, check_playable
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

_NAMES = {
    "LEFT": "left",
    "RIGHT": "right",
    "UP": "up",
    "DOWN": "down",
    "RETURN": "enter",
    "KP_ENTER": "enter",
    "ESCAPE": "escape",
    "BACKSPACE": "backspace",
    "SPACE": "space",
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
    agent: "Agent | str | None" = None,
    tick: Callable[[Viewer], None] | None = None,
) -> list[float]:
    """Open the window and play until it is closed; returns the score of every finished episode.

    seed: of the first episode; save: directory of an episode store, to which finished episodes are added, and the one
    that is unfinished when the window is closed; agent: the one that takes over on the space bar (None: the task's
    shipped agent); tick: called before every picture (tests press keys there). Raises :class:`UserError` if pygame or a
    screen is missing, and for a world in which no key does anything.
    """
    check_playable(task)
    return show(lambda: viewer_of(task, seed, save, agent), tick)


def watch(
    agent: "Agent", seed: int, steps: int | None = None, tick: Callable[[Viewer], None] | None = None
) -> list[float]:
    """The window of :func:`play`, with the agent at the controls from the first frame; keys take over.

    steps: close the window after so many steps (None: when the person closes it); the rest is as for :func:`play`.
    """
    playing_of(agent.task)

    def viewer() -> Viewer:
        made = viewer_of(agent.task, seed, None, agent)
        made.hand_to_agent()
        return made

    return show(viewer, tick, steps)


def play_dream(
    task: Task,
    seed: int,
    agent: str | None = None,
    temperature: float = 1.0,
    tick: Callable[[Viewer], None] | None = None,
    dropout: float = 0.0,
) -> list[float]:
    """Open the window and play in dreams until it is closed; returns the score of every finished dream.

    agent: whose dreams they are (None: the task's shipped agent); temperature: 1 leaves M's predictions as they are;
    dropout: share of z and h that M does not see; tick and errors: as for :func:`play`.
    """
    dreaming = agent_that_dreams(task, agent, temperature)
    return show(lambda: DreamViewer(task, seed, dreaming, temperature, dropout), tick)


def show(
    make: Callable[[], Viewer], tick: Callable[[Viewer], None] | None = None, steps: int | None = None
) -> list[float]:
    """Show the viewer that ``make`` returns in a window until it is closed; returns its scores.

    tick: called before every picture, instead of waiting for the next one; steps: close the window after so many steps.
    """
    pygame = open_display()
    try:
        with contextlib.closing(make()) as viewer:
            screen = _opened(pygame, viewer)
            keys, gamepad = _Keys(pygame), Gamepad(pygame)
            pace, shown = Pace(viewer.frames_per_second), 0
            while viewer.running:
                interrupt.check()
                if tick is not None:
                    tick(viewer)
                for event in pygame.event.get():
                    _tell(viewer, event, keys, pygame)
                    gamepad.tell(viewer, event)
                viewer.advance()
                pace.step()
                shown += not viewer.paused
                if steps is not None and shown >= steps:
                    viewer.quit()
                viewer.note = pace.note
                if tick is not None or pace.draws():
                    _blit(screen, viewer.picture(), pygame)
                    pygame.display.flip()
                if tick is None and pace.left() > 0:
                    pygame.time.wait(max(1, round(1000 * pace.left())))
            return viewer.scores
    finally:
        pygame.quit()


def _opened(pygame: Any, viewer: Viewer) -> Any:
    try:
        screen = pygame.display.set_mode(viewer.size, pygame.RESIZABLE)
    except pygame.error as error:
        raise UserError(f"no window can be opened ({error}); play on a machine with a screen") from None
    pygame.display.set_caption(f"worldmodels: {viewer.title}")
    return screen


class _Keys:
    """Viewers' names of the keys that go down and up."""

    def __init__(self, pygame: Any) -> None:
        names = {getattr(pygame, f"K_{key}"): name for key, name in _NAMES.items()}
        names |= {getattr(pygame, f"K_{letter}"): letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"}
        self._names = names | {getattr(pygame, f"K_KP{digit}"): str(digit) for digit in range(10)}
        self._typed: dict[int, str] = {}

    def down(self, event: Any) -> str:
        """The name of the key that goes down."""
        # On keyboard layouts where digits and plus need the shift key, only the unicode text identifies them. It is
        # kept, because it is not said again when the key goes up.
        typed = getattr(event, "unicode", "").replace("+", "plus").replace("-", "minus")
        name = self._typed[event.key] = self._names.get(event.key, typed)
        return name

    def up(self, event: Any) -> str:
        """The name of the key that goes up, as it was when it went down; empty for one without a name."""
        return self._typed.pop(event.key, self._names.get(event.key, ""))


def _tell(viewer: Viewer, event: Any, keys: _Keys, pygame: Any) -> None:
    """Translate an event of pygame into a call of the viewer."""
    if event.type == pygame.QUIT:
        viewer.quit()
    elif event.type == pygame.WINDOWFOCUSLOST:
        viewer.lose_focus()
    elif event.type == pygame.MOUSEMOTION:
        viewer.point(_in_picture(event.pos, viewer.size, pygame))
    elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
        viewer.click(_in_picture(event.pos, viewer.size, pygame))
    elif event.type == pygame.KEYDOWN:
        viewer.press(keys.down(event))
    elif event.type == pygame.KEYUP and (name := keys.up(event)):
        viewer.release(name)


def _fitted(screen: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the largest place for a picture in a window that keeps the picture's shape."""
    factor = min(screen[0] / picture[0], screen[1] / picture[1])
    width, height = max(1, round(picture[0] * factor)), max(1, round(picture[1] * factor))
    return (screen[0] - width) // 2, (screen[1] - height) // 2, width, height


def _in_picture(place: tuple[int, int], picture: tuple[int, int], pygame: Any) -> tuple[int, int]:
    """The pixel of the picture at a place in the window, which may have another size."""
    left, top, width, height = _fitted(pygame.display.get_surface().get_size(), picture)
    return (place[0] - left) * picture[0] // width, (place[1] - top) * picture[1] // height


def _blit(screen: Any, picture: np.ndarray, pygame: Any) -> None:
    size = picture.shape[1], picture.shape[0]
    image = pygame.image.frombuffer(picture.tobytes(), size, "RGB")
    left, top, *scaled = _fitted(screen.get_size(), size)
    if tuple(scaled) != size:
        screen.fill(BACKGROUND)
        image = pygame.transform.smoothscale(image, scaled)
    screen.blit(image, (left, top))
