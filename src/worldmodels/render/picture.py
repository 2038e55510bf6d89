"""Pictures of an acting agent: the world, V's reconstruction of it and M's prediction of it, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from worldmodels.core.theme import ACCENT, BACKGROUND, PANEL, QUIET, TEXT, font
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

_PANEL = (480, 360)
_MARGIN, _HEAD, _FOOT = 24, 64, 76
_MOST_BARS = 6
"""If an action has more numbers, only the name of the largest is written, because bars would have too little room."""


@dataclass(frozen=True)
class Moment:
    """One step of an episode from the agent's point of view.

    score: sum of the rewards so far; world: the real picture, (H, W, 3) uint8; seen: V's reconstruction of the frame,
    (64, 64, 3) uint8; expected: M's prediction of this frame, made one step before and decoded, (64, 64, 3) uint8, None
    at the first step; action: the numbers (A,) that encode the action for M, None at the last step.
    """

    step: int
    score: float
    world: np.ndarray
    seen: np.ndarray
    expected: np.ndarray | None
    action: np.ndarray | None


def captions(latent_size: int) -> tuple[tuple[str, str, str], ...]:
    """A title and two lines of explanation for each of the three panels."""
    return (
        ("The world", "as people", "see it"),
        ("V sees", "decoded from", f"{latent_size} numbers"),
        ("M expected", "predicted one", "step before"),
    )


class Composer:
    """Draws moments of one task as pictures (H, W, 3) uint8 of an even ``size`` (width, height)."""

    def __init__(self, task: Task, latent_size: int = 32) -> None:
        playing = playing_of(task)
        self.latent_size = latent_size
        self._names, self._ranges = playing.action_names, playing.action_ranges
        width, height = _PANEL
        self._left = [_MARGIN + index * (width + _MARGIN) for index in range(3)]
        self.size = (3 * width + 4 * _MARGIN, _HEAD + height + _FOOT)
        self._plain = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(self._plain)
        for left, (title, *note) in zip(self._left, captions(latent_size), strict=True):
            draw.text((left, 46), title, TEXT, font(26), anchor="ls")
            draw.text((left + draw.textlength(title, font(26)) + 14, 46), " ".join(note), QUIET, font(18), anchor="ls")

    def draw(self, moment: Moment) -> np.ndarray:
        """A picture of the three panels with score, step and action."""
        image = self._plain.copy()
        for left, picture in zip(self._left, (moment.world, moment.seen, moment.expected), strict=True):
            image.paste(_panel(picture, _PANEL, picture is moment.world), (left, _HEAD))
        draw = ImageDraw.Draw(image)
        top = _HEAD + _PANEL[1] + 22
        self._number(draw, self._left[0], top, "score", f"{moment.score:,.0f}")
        self._number(draw, self._left[0] + 250, top, "step", f"{moment.step:,}")
        if moment.action is not None and len(self._names) > _MOST_BARS:
            chosen = self._names[int(moment.action.argmax())]
            draw.text((self._left[1], top + 28), "action", QUIET, font(20), anchor="ls")
            draw.text((self._left[1] + 76, top + 28), chosen, TEXT, font(30), anchor="ls")
        elif moment.action is not None:
            self._bars(draw, top, moment.action)
        return np.asarray(image)

    def _number(self, draw: ImageDraw.ImageDraw, left: int, top: int, name: str, value: str) -> None:
        draw.text((left, top + 28), name, QUIET, font(20), anchor="ls")
        draw.text((left + 70, top + 28), value, TEXT, font(30), anchor="ls")

    def _bars(self, draw: ImageDraw.ImageDraw, top: int, action: np.ndarray) -> None:
        """Draw one bar per action number, from zero to its value, on a scale of its whole range."""
        room = self.size[0] - self._left[1] - _MARGIN
        slot = room / max(3, len(self._ranges))
        for index, (low, high) in enumerate(self._ranges):
            left = self._left[1] + index * slot
            label = self._names[index]
            draw.text((left, top + 28), label, QUIET, font(20), anchor="ls")
            start = left + max(draw.textlength(name, font(20)) for name in self._names) + 14
            end = self._left[1] + (index + 1) * slot - 28
            draw.rounded_rectangle((start, top + 12, end, top + 30), 4, PANEL)
            zero, value = (start + (end - start) * _share(number, low, high) for number in (0.0, float(action[index])))
            if abs(value - zero) >= 1:
                draw.rectangle((min(zero, value), top + 12, max(zero, value), top + 30), ACCENT)
            if low < 0 < high:
                draw.line((zero, top + 8, zero, top + 34), QUIET, 2)


def contact_sheet(moments: Sequence[Moment], latent_size: int = 32) -> np.ndarray:
    """A picture (H, W, 3) uint8 with a column per moment; rows: the world, V's reconstruction, M's prediction."""
    panel, gap, label, head = (208, 156), 10, 190, 44
    size = (label + len(moments) * (panel[0] + gap) + gap, head + 3 * (panel[1] + gap) + gap)
    image = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(image)
    for row, (title, *lines) in enumerate(captions(latent_size)):
        middle = head + row * (panel[1] + gap) + panel[1] // 2
        draw.text((20, middle - 12), title, TEXT, font(26), anchor="lm")
        for index, line in enumerate(lines):
            draw.text((20, middle + 16 + 20 * index), line, QUIET, font(16), anchor="lm")
    for column, moment in enumerate(moments):
        left = label + column * (panel[0] + gap)
        draw.text((left, head - 12), f"step {moment.step}", QUIET, font(17), anchor="ls")
        draw.text((left + panel[0], head - 12), f"score {moment.score:.0f}", TEXT, font(17), anchor="rs")
        for row, picture in enumerate((moment.world, moment.seen, moment.expected)):
            image.paste(_panel(picture, panel, picture is moment.world), (left, head + row * (panel[1] + gap)))
    return np.asarray(image)


def _panel(picture: np.ndarray | None, size: tuple[int, int], sharp: bool) -> Image.Image:
    if picture is None:
        blank = Image.new("RGB", size, PANEL)
        middle = (size[0] / 2, size[1] / 2)
        ImageDraw.Draw(blank).text(middle, "nothing seen yet", QUIET, font(max(14, size[0] // 20)), anchor="mm")
        return blank
    image = Image.fromarray(picture)
    if sharp and picture.shape[0] < 128:
        # Pixels of a small observation are kept sharp; only decoded pictures, which are blurred anyway, are smoothed.
        factor = -(-size[1] // picture.shape[0])
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BICUBIC)


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
