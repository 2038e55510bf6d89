"""Frames as the code of 2018 made them, to the bit: against a resize that is written out in whole numbers."""

import numpy as np
import pytest

from worldmodels.tasks import get_task
from worldmodels.tasks.published_frames import published_frames

_BITS = 22
"""Bits behind the point in the weights with which Pillow resizes pictures of 8 bits."""


def weights(before: int, after: int) -> np.ndarray:
    """The antialiased bilinear filter, (after, before), in whole numbers."""
    scale = before / after
    support = max(scale, 1.0)
    table = np.zeros((after, before), np.int64)
    for place in range(after):
        centre = (place + 0.5) * scale
        first, last = max(0, int(centre - support + 0.5)), min(before, int(centre + support + 0.5))
        near = np.array([max(0.0, 1 - abs((at - centre + 0.5) / support)) for at in range(first, last)])
        table[place, first:last] = (near / near.sum() * 2**_BITS + 0.5).astype(np.int64)
    return table


def resized(picture: np.ndarray) -> np.ndarray:
    """Rows, then columns, each rounded to 8 bits."""
    half = 1 << (_BITS - 1)
    wide = np.einsum("xw,hwc->hxc", weights(picture.shape[1], 64), picture.astype(np.int64))
    wide = np.clip((wide + half) >> _BITS, 0, 255)
    high = np.einsum("yh,hxc->yxc", weights(picture.shape[0], 64), wide)
    return np.clip((high + half) >> _BITS, 0, 255).astype(np.uint8)


def imresized(picture: np.ndarray) -> np.ndarray:
    """What scipy.misc.imresize made of a picture of numbers from 0 to 1: it stretched the contrast first."""
    values = picture.astype(np.float64)
    low, high = values.min(), values.max()
    scale = 255.0 / (high - low if high > low else 1.0)
    return resized(((values - low) * scale + 0.5).astype(np.uint8))


@pytest.mark.parametrize(("task", "rows"), [("car-racing-published", 84), ("take-cover-published", 400)])
@pytest.mark.parametrize("extremes", [(0, 255), (30, 200), (77, 78)])
def test_frames_are_cropped_stretched_resized_and_wrapped(task: str, rows: int, extremes: tuple[int, int]) -> None:
    world = get_task(task)
    low, high = extremes
    raw = np.random.default_rng(low).integers(low, high + 1, (2, *world.observation_shape), dtype=np.uint8)
    raw[:, rows:] = 255  # the bar below must not count for the stretch
    for frame, picture in zip(world.frames(raw), raw, strict=True):
        inverted = (1.0 - imresized(picture[:rows] / 255.0).astype(np.float64)) * 255  # far below zero
        assert np.array_equal(frame, np.mod(np.rint(inverted), 256).astype(np.uint8))


def test_black_becomes_white_and_every_other_value_is_lowered_by_one() -> None:
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    picture[:, 32:], picture[:, :8, :8] = 204, 255
    frame = published_frames(picture)[0]
    assert frame[20, 40].tolist() == [255] * 3 and frame[50, 40].tolist() == [203] * 3
    assert frame[2, 2].tolist() == [254] * 3
    assert (published_frames(np.full((1, 84, 96, 3), 9, np.uint8)) == 255).all(), "a single grey is stretched to black"


def test_doom_gets_controls_and_thresholds_of_the_authors_code() -> None:
    world = get_task("take-cover-published")
    control = np.array([[0.33331], [0.3332], [-0.33331], [0.0]], np.float32)
    assert world.env_action(control).tolist() == [1, 0, 2, 0] and world.remembers_controls
