"""Encoders of recorded moments: an H.264 video or an animated GIF, written frame by frame, or a contact sheet."""

from pathlib import Path
from typing import Protocol

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.render.gif import Gif
from worldmodels.render.moment import Moment, MomentPainter
from worldmodels.render.mp4 import Mp4

_GIF_FPS = 10
"""About how many frames per second a GIF has by default."""
_SHEET_EVERY = 5
_SHEET = 8
"""Moments in a contact sheet."""


def usual_every(suffix: str, steps_per_second: int) -> int:
    """Every how many steps a file of the type ``suffix`` shows by default."""
    gif = max(1, round(steps_per_second / _GIF_FPS))
    return {".mp4": 1, ".gif": gif, ".png": _SHEET_EVERY}[suffix]


class Encoder(Protocol):
    """Takes moments in order."""

    def add(self, moment: Moment) -> None:
        """Encode one moment."""
        ...

    def finish(self) -> None:
        """Complete the file."""
        ...

    def close(self) -> None:
        """Release all resources, whether or not the file is complete."""
        ...


def encoder(path: Path, suffix: str, painter: MomentPainter, fps: float) -> Encoder:
    """The encoder for the file type ``suffix`` (.mp4, .gif or .png); fps: moments per second of time."""
    if suffix == ".mp4":
        return Mp4(path, painter, fps)
    return Gif(path, painter, fps) if suffix == ".gif" else _Sheet(path, painter)


class _Sheet:
    """Keeps a few evenly spaced moments of an episode whose length is unknown until it ends."""

    def __init__(self, path: Path, painter: MomentPainter) -> None:
        self._path, self._spacing, self._painter = path, 1, painter
        self._kept: list[Moment] = []

    def add(self, moment: Moment) -> None:
        if moment.expected is None or moment.step % self._spacing:
            return
        self._kept.append(moment)
        if len(self._kept) >= 8 * _SHEET:
            self._spacing *= 2
            self._kept = [kept for kept in self._kept if kept.step % self._spacing == 0]

    def finish(self) -> None:
        if not self._kept:
            raise UserError("the episode ended before M made a prediction; choose another --seed")
        count = min(_SHEET, len(self._kept))
        places = (np.arange(count) + 0.5) * len(self._kept) / count
        chosen = [self._kept[int(place)] for place in places]
        self._painter.sheet(chosen).save(self._path)

    def close(self) -> None:
        self._kept.clear()
