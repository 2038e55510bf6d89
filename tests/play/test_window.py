"""The window: what pygame's events become, what is shown, and what is said where there is no window."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pygame
import pytest

from dream_agents import dreamer
from windows import key_down, key_up, pressing, script
from worldmodels.core.errors import UserError
from worldmodels.play import display, window
from worldmodels.play.choices import ChoiceViewer
from worldmodels.play.dream import DreamViewer
from worldmodels.play.pace import Pace
from worldmodels.play.scene import Panel, ScenePainter
from worldmodels.play.viewer import Viewer
from worldmodels.play.window import play, play_dream, show, watch
from worldmodels.play.world import WorldViewer
from worldmodels.tasks import get_task

BINS = get_task("bin-packing")


@pytest.fixture(autouse=True)
def no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Hears(Viewer):
    """Keeps what it is told."""

    help = "no keys"  # type: ignore[assignment]

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

    def tilt(self, steer: float, forward: float, back: float) -> None:
        self.told.append(("tilt", steer, forward, back))

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
        return (Panel(np.full((20, 30, 3), 10 * min(self.ticks, 2), np.uint8)),)


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
        pygame.K_SPACE: "space",
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
    now = [0.0]
    waited: list[int] = []

    def wait(milliseconds: int) -> None:
        waited.append(milliseconds)
        now[0] += milliseconds / 1000
        if len(waited) == 5:
            viewer.quit()

    viewer = Hears()
    monkeypatch.setattr(window, "Pace", lambda rate: Pace(rate, lambda: now[0]))
    monkeypatch.setattr(pygame.time, "wait", wait)
    show(lambda: viewer)
    assert waited == [200] * 5 and viewer.note == ""


def test_the_window_closes_after_the_given_number_of_steps() -> None:
    viewer = Hears()
    show(lambda: viewer, lambda same: None, steps=7)
    assert viewer.ticks == 7 and viewer.closed


def test_a_window_of_another_size_shows_the_picture_in_its_own_shape_and_places_are_those_of_the_picture() -> None:
    viewer = Hears()
    width, height = viewer.size
    seen: list[np.ndarray] = []

    def tick(same: Viewer) -> None:
        if viewer.ticks == 1:
            pygame.display.set_mode((2 * width + 100, 2 * height), pygame.RESIZABLE)
            pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(50 + 2 * 30, 2 * 40)))
        elif viewer.ticks == 3:
            seen.append(pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1))
            viewer.quit()

    show(lambda: viewer, tick)
    assert ("click", (30, 40)) in viewer.told
    assert (seen[0][:, :50] == seen[0][0, 0]).all() and (seen[0][:, -50:] == seen[0][0, 0]).all()
    assert (seen[0][:400, 50:-50] == 20).all(), "the picture, twice as large"


def axis(number: int, value: float) -> pygame.event.Event:
    return pygame.event.Event(pygame.JOYAXISMOTION, axis=number, value=value, joy=0, instance_id=0)


def test_the_stick_and_the_triggers_of_a_gamepad_are_told_and_its_buttons_are_keys() -> None:
    button = lambda kind, number: pygame.event.Event(kind, button=number, joy=0, instance_id=0)  # noqa: E731
    heard = told(
        axis(0, -0.5),
        axis(5, 1.0),
        axis(2, 0.0),
        axis(0, 0.1),
        button(pygame.JOYBUTTONDOWN, 3),
        button(pygame.JOYBUTTONDOWN, 0),
        button(pygame.JOYBUTTONUP, 0),
        button(pygame.JOYBUTTONDOWN, 7),
        pygame.event.Event(pygame.JOYHATMOTION, hat=0, value=(-1, 0), joy=0, instance_id=0),
        pygame.event.Event(pygame.JOYHATMOTION, hat=0, value=(0, 1), joy=0, instance_id=0),
    )
    assert heard == [
        ("tilt", -0.5, 0.0, 0.0),
        ("tilt", -0.5, 1.0, 0.0),
        ("tilt", -0.5, 1.0, 0.5),
        ("tilt", 0.0, 1.0, 0.5),
        ("press", "space"),
        ("press", "up"),
        ("release", "up"),
        ("press", "enter"),
        ("press", "left"),
        ("release", "left"),
        ("press", "up"),
    ]


def test_the_agent_plays_from_the_first_frame_when_it_is_watched_and_a_key_takes_over(tmp_path: Path) -> None:
    seen: list[tuple[int, str, str]] = []

    def look(viewer: Viewer) -> None:
        assert isinstance(viewer, WorldViewer)
        seen.append((viewer.step, viewer.player, viewer.help.split("    ")[0]))

    moves = script(look, look, pressing(pygame.K_d), look)
    watch(dreamer(), 1, tick=moves)
    assert seen == [
        (0, "agent", "the agent plays: arrow keys or WASD take over"),
        (1, "agent", "the agent plays: arrow keys or WASD take over"),
        (3, "you", "arrow keys or WASD act"),
    ]


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
    monkeypatch.setattr(window, "open_display", lambda: pytest.fail("a window was opened"))
    with pytest.raises(UserError, match="bin-packing cannot be played by hand in its dream"):
        play_dream(BINS, 1, str(tmp_path))


def test_without_a_screen_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(display.sys, "platform", "linux")
    assert not display.has_display()
    with pytest.raises(UserError, match="no screen: DISPLAY is not set; use worldmodels watch or worldmodels record"):
        play(get_task("car-racing"), seed=1)


def test_a_display_where_nothing_answers_is_refused_instead_of_played_invisibly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SDL_VIDEODRIVER")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":99")
    assert not display.has_display()
    with pytest.raises(
        UserError, match=r"(no screen answers at DISPLAY=:99|no window can be opened).*; use worldmodels"
    ):
        play(get_task("car-racing"), seed=1)
    assert not pygame.display.get_init()


def test_a_screen_that_cannot_be_opened_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "no-such-driver")
    with pytest.raises(UserError, match="no window can be opened"):
        show(lambda: pytest.fail("a world was opened"))


def test_without_pygame_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match=r'pip install "worldmodels\[play\]"'):
        play(BINS, 1)


def test_saving_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        play(get_task("car-racing"), seed=1, save=tmp_path / "file")
