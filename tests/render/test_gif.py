"""GIFs play in real time: the delays of their frames."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worldmodels.render.encoders import encoder, usual_every
from worldmodels.render.moment import Moment


class Flat:
    """Draws the step as a grey."""

    size, gif_scale = (8, 8), 1.0

    def draw(self, moment: Moment) -> np.ndarray:
        return np.full((8, 8, 3), moment.step, np.uint8)

    def sheet(self, moments: object) -> Image.Image:
        raise NotImplementedError


def delays(path: Path, fps: float, count: int) -> list[int]:
    """Milliseconds for which each frame of a GIF of ``count`` moments is shown."""
    writer = encoder(path, ".gif", Flat(), fps)
    frame = np.zeros((8, 8, 3), np.uint8)
    for step in range(count):
        action = None if step == count - 1 else np.zeros(1)
        writer.add(Moment(step, 0.0, frame, frame, frame, action))
    writer.finish()
    found = []
    with Image.open(path) as image:
        assert np.asarray(image.convert("RGB")).max() <= 1
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            found.append(int(image.info["duration"]))
        assert abs(int(np.asarray(image.convert("RGB")).max()) - (count - 1)) <= 1, "the last moment is shown"
    return found


@pytest.mark.parametrize("fps", [50 / 5, 35 / 4, 5.0, 50.0, 35.0, 12.5, 1.0])
def test_a_gif_lasts_as_long_as_what_it_shows(tmp_path: Path, fps: float) -> None:
    *before, last = delays(tmp_path / "a.gif", fps, 41)
    assert len(before) == 40 and last == 1500
    assert abs(sum(before) - 1000 * 40 / fps) <= 5
    assert max(before) - min(before) <= 10, "delays are those nearest to the true one"


@pytest.mark.parametrize("fps", [60.0, 100.0, 250.0])
def test_frames_that_would_follow_too_fast_for_browsers_are_left_out_of_a_gif(tmp_path: Path, fps: float) -> None:
    *before, _ = delays(tmp_path / "a.gif", fps, 101)
    assert min(before) >= 20 and len(before) < 100
    assert abs(sum(before) - 1000 * 100 / fps) <= 20


def test_a_gif_has_about_ten_frames_per_second_by_default_and_a_video_all() -> None:
    assert [usual_every(".gif", rate) for rate in (50, 35, 5)] == [5, 4, 1]
    assert [usual_every(".mp4", rate) for rate in (50, 35, 5)] == [1, 1, 1]


def test_pixels_that_stay_the_same_cost_nothing_and_the_frames_are_right(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 8, (100, 100, 1), dtype=np.uint8) * 30 + np.zeros(3, np.uint8)

    class Dot(Flat):
        size = (100, 100)

        def draw(self, moment: Moment) -> np.ndarray:
            picture: np.ndarray = noise.astype(np.uint8)
            picture[moment.step * 10 : moment.step * 10 + 5, :5] = (250, 20, 20)
            return picture

    sizes = []
    for count in (1, 9):
        writer = encoder(tmp_path / "a.gif", ".gif", Dot(), 10)
        for step in range(count):
            writer.add(Moment(step, 0.0, noise, noise, noise, np.zeros(1)))
        writer.finish()
        sizes.append((tmp_path / "a.gif").stat().st_size)
    assert sizes[1] < 3 * sizes[0]
    with Image.open(tmp_path / "a.gif") as image:
        for step in range(9):
            image.seek(step)
            difference = np.asarray(image.convert("RGB")).astype(int) - Dot().draw(
                Moment(step, 0, noise, noise, noise, None)
            )
            assert abs(difference).max() <= 20
