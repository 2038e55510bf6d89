"""Pictures of scenes: where things stand, that text fits, and that they are drawn fast enough for 50 a second."""

import time
from dataclasses import replace

import numpy as np
import pytest

from worldmodels.core.theme import BACKGROUND, text_width
from worldmodels.play.scene import Panel, Scene, ScenePainter, fitted, resized

GROUND = np.array([int(BACKGROUND[start : start + 2], 16) for start in (1, 3, 5)], np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (350, 600, 3), dtype=np.uint8)


def scene(
    *panels: Panel,
    readings: tuple[tuple[str, str], ...] = (("score", "7"),),
    message: str = "",
    banner: str | None = None,
) -> Scene:
    return Scene("A world", panels or (Panel(NOISE),), readings, message, "keys", banner)


def inked(picture: np.ndarray) -> np.ndarray:
    """Where a picture differs from its background, (H, W) bool."""
    found: np.ndarray = (picture != GROUND).any(axis=-1)
    return found


def test_panels_stand_side_by_side_under_their_captions_and_above_the_readings() -> None:
    red, blue = (np.full((9, 12, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    painter = ScenePainter((300, 200), columns=2, captions=True)
    picture = painter.draw(scene(Panel(red, "left"), Panel(blue, "right")))
    assert picture.shape == (*painter.size[::-1], 3) and painter.size[0] == 600
    rows = np.flatnonzero((picture[:, :300] == (255, 0, 0)).all(axis=(1, 2)))
    assert len(rows) == 200 and (picture[rows, 300:] == (0, 0, 255)).all()
    head, foot = picture[: rows[0]], picture[rows[-1] + 1 :]
    assert inked(head[:, :300]).any() and inked(head[:, 300:]).any() and inked(foot).any()


@pytest.mark.parametrize("shape", [(350, 600, 3), (64, 64, 3), (1000, 400, 3), (630, 900, 3)])
def test_pictures_of_any_size_fill_the_panel(shape: tuple[int, int, int]) -> None:
    flat = np.full(shape, 77, np.uint8)
    assert (resized(flat, (900, 630)) == np.full((630, 900, 3), 77)).all()
    flat.flags.writeable = False
    assert resized(flat[:, ::-1], (90, 63)).shape == (63, 90, 3)


def test_enlarging_keeps_what_is_where() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:, 1] = 200
    larger = resized(halves, (640, 320))
    assert (larger[:, :300] == 0).all() and (larger[:, 340:] == (0, 200, 0)).all()


def test_a_message_takes_the_place_of_the_help_unless_it_has_a_row_of_its_own() -> None:
    one, two = ScenePainter((300, 200)), ScenePainter((300, 200), message_line=True)
    assert two.size[1] > one.size[1]
    assert (one.draw(scene())[200:] != one.draw(scene(message="saved"))[200:]).any()
    helped, both = two.draw(scene()), two.draw(scene(message="saved"))
    assert (helped[-30:] == both[-30:]).all() and (helped != both).any()


def test_the_banner_is_written_over_the_darkened_world() -> None:
    painter = ScenePainter((300, 200))
    plain, paused = painter.draw(scene()), painter.draw(scene(banner="paused"))
    rows = np.flatnonzero((plain != paused).any(axis=(1, 2)))
    assert 60 < len(rows) < 80 and paused[rows].mean() < plain[rows].mean() / 2


def test_a_note_is_written_in_the_upper_right_corner() -> None:
    painter = ScenePainter((300, 200))
    plain, noted = painter.draw(scene()), painter.draw(replace(scene(), note="38 of 50"))
    changed = (plain != noted).any(axis=-1)
    assert changed[:34].any() and not changed[34:].any() and not changed[:, :150].any()


def test_every_picture_is_the_callers_own() -> None:
    painter = ScenePainter((300, 200))
    first = painter.draw(scene())
    kept = first.copy()
    first[:] = 0
    assert (painter.draw(scene()) == kept).all()


def test_readings_keep_their_places_while_values_change() -> None:
    painter = ScenePainter((600, 50))

    def player_at(score: str) -> int:
        readings = (("score", score), ("player", "you"))
        foot = inked(painter.draw(scene(readings=readings))[50:100])
        return int(np.flatnonzero(foot.any(axis=0))[-1])

    before = player_at("-123")
    assert player_at("5") == player_at("-99") == before


@pytest.mark.parametrize("count", [3, 6, 9])
def test_readings_fit_into_the_picture(count: int) -> None:
    painter = ScenePainter((900, 50))
    readings = tuple((f"reading {number}", "100") for number in range(count))
    picture = painter.draw(scene(readings=readings))
    ends = painter.draw(scene(readings=(*readings[:-1], (readings[-1][0], ""))))
    assert (picture != ends).any(), "the last value is in the picture"


def test_long_text_is_made_smaller_and_at_last_cut() -> None:
    assert fitted("short", 20, 500) == ("short", 20)
    text, size = fitted("some words of an error " * 4, 20, 620)
    assert text.count("error") == 4 and size < 20 and text_width(text, size) <= 620
    text, size = fitted("some words of an error " * 40, 20, 620)
    assert text.endswith("...") and text_width(text, size) <= 620


def test_a_message_of_two_lines_is_shown_to_its_end() -> None:
    painter = ScenePainter((900, 50))
    long = "expected something that is not there and that has a rather long name, got something else altogether; " * 2
    pictures = [painter.draw(scene(message=f"{long}do {what}"))[50:] for what in ("this", "that")]
    assert (pictures[0] != pictures[1]).any()


def test_a_scene_is_drawn_in_a_few_milliseconds() -> None:
    painter = ScenePainter((900, 630))
    spent = []
    for step in range(60):
        readings = (("score", f"{step}"), ("step", f"{step}"), ("time", f"{step / 50:.1f} / 20 s"), ("player", "you"))
        started = time.thread_time()
        painter.draw(scene(readings=readings))
        spent.append(time.thread_time() - started)
    assert np.median(spent) < 0.012, "a third of that on an idle machine; 20 ms are all there are"
