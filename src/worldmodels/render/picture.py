"""Pictures of an acting agent: the world, V's reconstruction of it and M's prediction of it, side by side."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from worldmodels.core.theme import BACKGROUND, PANEL, QUIET, TEXT, font, text_width, write
from worldmodels.render.actions import ActionPainter, write_number
from worldmodels.render.moment import Moment
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

PANEL_SIZE = (480, 360)
MARGIN, HEAD, FOOT = 24, 64, 76
_SHARP = 128
"""Pictures with fewer rows are observations, whose pixels are shown as they are."""


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
        self._latent_size, self._board = latent_size, playing.board()
        self._actions = ActionPainter(playing)
        self.gif_scale = 0.5 if self._board is None else 0.7  # a board is full of text
        width, height = PANEL_SIZE
        widths = [width] * 3
        if self._board is not None:
            # A board is wide and full of text, so that the two squares that V and M see are made smaller.
            across, down = self._board.size
            widths = [round(height * across / down), height, height]
        ends = np.cumsum([one + MARGIN for one in widths]).tolist()
        self._places = [(end - one, one) for end, one in zip(ends, widths, strict=True)]
        total = ends[-1] + MARGIN
        self.size = (total + total % 2, HEAD + height + FOOT)
        plain = Image.new("RGB", self.size, BACKGROUND)
        for (left, _), (title, *note) in zip(self._places, captions(latent_size), strict=True):
            write(plain, title, (left, 46), 26, TEXT)
            write(plain, " ".join(note), (left + text_width(title, 26) + 14, 46), 18, QUIET)
        self._plain = np.array(plain)

    def draw(self, moment: Moment) -> np.ndarray:
        """A picture of the three panels with score, step and action."""
        picture, bottom = self._plain.copy(), HEAD + PANEL_SIZE[1]
        pictures = moment.world, moment.seen, moment.expected
        for index, ((left, width), shown) in enumerate(zip(self._places, pictures, strict=True)):
            picture[HEAD:bottom, left : left + width] = panel(shown, (width, PANEL_SIZE[1]), index == 0)
        foot = Image.new("RGB", (self.size[0], FOOT), BACKGROUND)
        write_number(foot, self._places[0][0], 50, "score", f"{moment.score:,.0f}")
        write_number(foot, self._places[0][0] + 250, 50, "step", f"{moment.step:,}")
        if moment.action is not None:
            self._actions.draw(foot, self._places[1][0], self.size[0] - MARGIN, 50, moment.action)
        picture[bottom:] = np.asarray(foot)
        return picture

    def sheet(self, moments: Sequence[Moment]) -> Image.Image:
        """A contact sheet."""
        return contact_sheet(moments, self._latent_size, self._board is not None)


def contact_sheet(moments: Sequence[Moment], latent_size: int = 32, board: bool = False) -> Image.Image:
    """A picture with a column per moment; rows: the world, V's reconstruction, M's prediction.

    board: whether the world is a board, which is shown in its own shape.
    """
    size, gap, label, head = (208, 156), 10, 190, 44
    if board:
        size = (round(moments[0].world.shape[1] / moments[0].world.shape[0] * size[1]), size[1])
    whole = (label + len(moments) * (size[0] + gap) + gap, head + 3 * (size[1] + gap) + gap)
    image = Image.new("RGB", whole, BACKGROUND)
    draw = ImageDraw.Draw(image)
    for row, (title, *lines) in enumerate(captions(latent_size)):
        middle = head + row * (size[1] + gap) + size[1] // 2
        draw.text((20, middle - 12), title, TEXT, font(26), anchor="lm")
        for index, line in enumerate(lines):
            draw.text((20, middle + 16 + 20 * index), line, QUIET, font(16), anchor="lm")
    for column, moment in enumerate(moments):
        left = label + column * (size[0] + gap)
        draw.text((left, head - 12), f"step {moment.step}", QUIET, font(17), anchor="ls")
        draw.text((left + size[0], head - 12), f"score {moment.score:.0f}", TEXT, font(17), anchor="rs")
        for row, shown in enumerate((moment.world, moment.seen, moment.expected)):
            width = size[1] if board and row else size[0]
            place = (left, head + row * (size[1] + gap))
            image.paste(Image.fromarray(panel(shown, (width, size[1]), row == 0)), place)
    return image


def panel(picture: np.ndarray | None, size: tuple[int, int], sharp: bool = False) -> np.ndarray:
    """A picture (H, W, 3) uint8, resized to ``size`` (width, height); None is drawn as "nothing seen yet".

    sharp: whether the pixels of a small observation are kept sharp; decoded pictures, which are blurred anyway, are
    smoothed.
    """
    if picture is None:
        return _nothing(size)
    if sharp and picture.shape[0] < _SHARP:
        factor = -(-size[1] // picture.shape[0])
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return resized(picture, size, "bicubic")


def resized(picture: np.ndarray, size: tuple[int, int], mode: str = "bilinear") -> np.ndarray:
    """A picture (H, W, 3) uint8, resized to ``size`` (width, height) with an antialiased filter.

    mode: bilinear or bicubic, which is sharper. PyTorch does this several times as fast as Pillow if the colours of a
    pixel are adjacent in memory.
    """
    if picture.shape[:2] == size[::-1]:
        return picture
    image = torch.from_numpy(np.require(picture, requirements=["C", "W"])).unsqueeze(0).permute(0, 3, 1, 2)
    scaled = F.interpolate(image, size=size[::-1], mode=mode, antialias=True)
    array: np.ndarray = scaled[0].permute(1, 2, 0).numpy()
    return array


@lru_cache(8)
def _nothing(size: tuple[int, int]) -> np.ndarray:
    blank = Image.new("RGB", size, PANEL)
    middle = (size[0] / 2, size[1] / 2)
    ImageDraw.Draw(blank).text(middle, "nothing seen yet", QUIET, font(max(14, size[0] // 20)), anchor="mm")
    return np.asarray(blank)
