"""An encoder of animated GIFs that play in real time."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import GifImagePlugin, Image

from worldmodels.render.moment import Moment, MomentPainter

_COLOURS = 127
"""Colours of a frame; one more stands for pixels that stay as they are."""
_SHORTEST = 2
"""Browsers show a frame with a shorter delay, in hundredths of a second, for a tenth of a second instead."""
_LAST = 150
"""How long the last frame is shown, in hundredths of a second."""


class Gif:
    """Frames of the painter's ``gif_scale``, each with its own palette, written one by one.

    Pixels that do not change are not written again, which makes boards and captions cost little.
    Delays are whole hundredths of a second. They are those between the rounded times of the frames, so that rounding
    does not add up; frames that would follow within less than 0.02 s are left out.
    """

    def __init__(self, path: Path, painter: MomentPainter, fps: float) -> None:
        self._painter, self._fps = painter, fps
        width, height = painter.size
        self._size = (round(width * painter.gif_scale), round(height * painter.gif_scale))
        self._before: np.ndarray | None = None
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._waiting: Image.Image | None = None
        self._added, self._shown_at, self._first = 0, 0, True

    def add(self, moment: Moment) -> None:
        """Encode one moment."""
        at = round(100 * self._added / self._fps)
        self._added += 1
        if self._waiting is not None and at - self._shown_at < _SHORTEST:
            if moment.action is not None:
                return
            at = self._shown_at  # the last moment is shown instead of the one before
        self._write(at - self._shown_at)
        self._shown_at = at
        image = Image.fromarray(self._painter.draw(moment)).resize(self._size, Image.Resampling.LANCZOS)
        self._waiting = image

    def _write(self, delay: int) -> None:
        image, self._waiting = self._waiting, None
        if image is None or delay < _SHORTEST:
            return
        frame = image.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        pixels = np.asarray(image)
        if self._before is not None:
            places = np.where((pixels == self._before).all(axis=-1), _COLOURS, np.asarray(frame)).astype(np.uint8)
            changing = Image.fromarray(places, "P")
            changing.putpalette(frame.palette.getdata()[1] if frame.palette else b"")
            frame = changing
        self._before = pixels
        if self._first:
            header, _ = GifImagePlugin.getheader(frame, info={"loop": 0, "optimize": False})
            self._file.writelines(header)
        shown: dict[str, Any] = {"duration": 10 * delay, "disposal": 1, "include_color_table": True}
        if not self._first:
            shown["transparency"] = _COLOURS
        self._first = False
        self._file.writelines(GifImagePlugin.getdata(frame, **shown))

    def finish(self) -> None:
        """Complete the file."""
        self._write(_LAST)
        self._file.write(b";")
        self._file.close()

    def close(self) -> None:
        """Close the file, whether or not it is complete."""
        self._file.close()
