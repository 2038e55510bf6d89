"""The window: what pygame's events become, what is shown, and what is said where there is no window."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest

from dream_agents import dreamer
from worldmodels.core.errors import UserError
from worldmodels.play import window
from worldmodels.play.choices import ChoiceViewer
from worldmodels.play.dream import DreamViewer
from worldmodels.play.scene import Panel, ScenePainter
from worldmodels.play.viewer import Viewer
from worldmodels.play.window import play, play_dream, show
from worldmodels.play.world import WorldViewer
from worldmodels.tasks import get_task

BINS = get_task("bin-packing")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Hears(Viewer):
    """Keeps what it is told."""

    help = "no keys"

    def __init__(self) -> None:
        super().__init__(BINS, 1, "test", ScenePainter((300, 200)))
        self.told: list[tuple[Any, ...]] = []
        self.closed = False
        self.new_episode()

    def press(self, key: str) -> None:
        self.told.append(("press", key))

    def release(self, key: str) -> None:
        self.told.append(("release", key))

    def point(self, place: tuple[int, int]) -> None:
        self.told.append(("point", place))

    def click(self, place: tuple[int, int]) -> None:
        self.told.append(("click", place))

    def lose_focus(self) -> None:
        self.told.append(("lose focus",))

    def readings(self) -> dict[str, str]:
        return {"ticks": str(self.ticks)}

    def close(self) -> None:
        self.closed = True

    def _start(self) -> None:
        self.ticks = 0

    def _tick(self) -> None:
        self.ticks += 1

    def _panels(self) -> tuple[Panel, ...]:
        return (Panel(np.full((20, 30, 3), 10 * self.ticks, np.uint8)),)


def key_down(key: int, unicode: str = "") -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYDOWN, key=key, unicode=unicode)


def key_up(key: int) -> pygame.event.Event:
    return pygame.event.Event(pygame.KEYUP, key=key)


def told(*events: pygame.event.Event) -> list[tuple[Any, ...]]:
    """What a viewer is told when these things happen to its window."""
    viewer = Hears()

    def tick(shown: Viewer) -> None:
        if viewer.ticks == 0:
            for event in events:
                pygame.event.post(event)
        elif viewer.ticks == 2:
            viewer.quit()

    show(lambda: viewer, tick)
    return viewer.told


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
    def press(viewer: Viewer) -> None:
        for key in keys:
            pygame.event.post(key_down(key))

    return press


def test_keys_reach_the_viewer_by_name() -> None:
    keys = {
        pygame.K_LEFT: "left",
        pygame.K_RIGHT: "right",
        pygame.K_UP: "up",
        pygame.K_DOWN: "down",
        pygame.K_RETURN: "enter",
        pygame.K_KP_ENTER: "enter",
        pygame.K_ESCAPE: "escape",
        pygame.K_BACKSPACE: "backspace",
        pygame.K_PLUS: "plus",
        pygame.K_KP_PLUS: "plus",
        pygame.K_EQUALS: "plus",
        pygame.K_MINUS: "minus",
        pygame.K_KP_MINUS: "minus",
        pygame.K_a: "a",
        pygame.K_b: "b",
        pygame.K_n: "n",
        pygame.K_p: "p",
        pygame.K_q: "q",
        pygame.K_0: "0",
        pygame.K_9: "9",
        pygame.K_KP0: "0",
        pygame.K_KP9: "9",
    }
    assert told(*map(key_down, keys)) == [("press", name) for name in keys.values()]


def test_digits_and_plus_of_other_keyboard_layouts_are_understood_by_what_they_write() -> None:
    events = [key_down(pygame.K_AMPERSAND, "1"), key_down(pygame.K_ASTERISK, "+"), key_down(pygame.K_F1)]
    assert told(*events) == [("press", "1"), ("press", "plus"), ("press", "")]


def test_released_keys_the_mouse_and_the_focus_are_told() -> None:
    events = [
        key_up(pygame.K_UP),
        pygame.event.Event(pygame.MOUSEMOTION, pos=(3, 4), rel=(0, 0), buttons=(0, 0, 0)),
        pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(5, 6)),
        pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=3, pos=(7, 8)),
        pygame.event.Event(pygame.WINDOWFOCUSLOST),
    ]
    assert told(*events) == [("release", "up"), ("point", (3, 4)), ("click", (5, 6)), ("lose focus",)]


def test_the_window_shows_the_viewers_picture() -> None:
    viewer, shown = Hears(), []

    def tick(same: Viewer) -> None:
        if viewer.ticks == 3:
            screen = pygame.display.get_surface()
            shown.append(pygame.surfarray.array3d(screen).swapaxes(0, 1))
            assert pygame.display.get_caption()[0] == "worldmodels: Bin packing"
            viewer.quit()
            np.testing.assert_array_equal(shown[0], viewer.picture())

    show(lambda: viewer, tick)
    assert len(shown) == 1 and shown[0].shape == (*viewer.size[::-1], 3)


def test_a_closed_window_ends_the_session_and_the_world() -> None:
    viewer = Hears()
    assert show(lambda: viewer, script()) == []
    assert viewer.closed and not viewer.running and not pygame.display.get_init()


def test_without_a_tick_the_window_keeps_the_viewers_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[int] = []

    class Clock:
        def tick(self, rate: int) -> None:
            rates.append(rate)
            if len(rates) == 3:
                viewer.quit()

    viewer = Hears()
    monkeypatch.setattr(pygame.time, "Clock", Clock)
    show(lambda: viewer)
    assert rates == [5, 5, 5]


def test_a_track_is_driven_with_the_arrow_keys_in_a_window() -> None:
    seen: list[tuple[int, bool]] = []

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, WorldViewer)
        seen.append((viewer.step, "up" in viewer.held))

    up = lambda viewer: pygame.event.post(key_up(pygame.K_UP))  # noqa: E731
    scores = play(get_task("car-racing"), 1, tick=script(pressing(pygame.K_UP), look, up, look))
    assert seen == [(1, True), (3, False)] and scores == []


def test_bins_are_packed_with_numbers_in_a_window() -> None:
    seen: list[int] = []

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, ChoiceViewer)
        seen.append(viewer.step)

    play(BINS, 1, tick=script(pressing(pygame.K_0), look, pressing(pygame.K_KP0), look))
    assert seen == [1, 2]


def test_a_dream_is_played_in_a_window(tmp_path: Path) -> None:
    dreamer(end_bias=-20.0).save(tmp_path)
    seen: list[float] = []

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, DreamViewer)
        seen.append(viewer.temperature)

    play_dream(get_task("car-racing"), 1, str(tmp_path), 0.5, tick=script(look, pressing(pygame.K_PLUS), look))
    assert seen == pytest.approx([0.5, 0.5 * 1.15])


def test_a_dream_that_cannot_be_played_is_refused_before_a_window_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "_pygame", lambda: pytest.fail("a window was opened"))
    with pytest.raises(UserError, match="bin-packing cannot be played by hand in its dream"):
        play_dream(BINS, 1, str(tmp_path))


def test_without_a_screen_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(window.sys, "platform", "linux")
    with pytest.raises(UserError, match="no screen"):
        play(get_task("car-racing"), seed=1)


def test_a_screen_that_cannot_be_opened_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    viewer = Hears()
    with pytest.raises(UserError, match="no window can be opened"):
        show(lambda: viewer)
    assert viewer.closed


def test_without_pygame_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match=r'pip install "worldmodels\[play\]"'):
        play(BINS, 1)


def test_saving_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        play(get_task("car-racing"), seed=1, save=tmp_path / "file")
