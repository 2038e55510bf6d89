"""Encoders of recorded moments: an H.264 video or an animated GIF, written frame by frame, or a contact sheet."""

import contextlib
import glob
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import GifImagePlugin, Image

from worldmodels.core.errors import UserError
from worldmodels.render.picture import Moment, contact_sheet

SUFFIXES = (".mp4", ".gif", ".png")
EVERY = {".mp4": 1, ".gif": 5, ".png": 5}
"""By default only every so many steps are shown."""

_SHEET = 8
"""Moments in a contact sheet."""
_GIF_SCALE, _GIF_COLOURS, _GIF_FPS = 0.5, 128, 20


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


@contextlib.contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """A temporary file beside ``out``, which is renamed to ``out`` only if the block ends without an error.

    Raises :class:`UserError` for a file that cannot be written.
    """
    _sweep(out)
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.tmp{out.suffix}")
    try:
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        reason = (error.strerror or str(error)).splitlines()[0]
        raise UserError(f"could not write {out}: {reason}; free space or choose another --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(out: Path) -> None:
    """Remove temporary files of killed recordings of ``out``."""
    for litter in out.parent.glob(f".{glob.escape(out.stem)}.*.tmp{out.suffix}"):
        process = litter.name.removesuffix(f".tmp{out.suffix}").rpartition(".")[2]
        if process.isdigit() and not _runs(int(process)):
            litter.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # a process of another user
    return True


class MomentPainter(Protocol):
    """Draws moments as pictures of one ``size`` (width, height); latent_size: numbers in z."""

    size: tuple[int, int]
    latent_size: int

    def draw(self, moment: Moment) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""
        ...


def encoder(path: Path, suffix: str, painter: MomentPainter, fps: float) -> Encoder:
    """The encoder for the file type ``suffix`` (.mp4, .gif or .png); fps: frames per second of an .mp4."""
    if suffix == ".mp4":
        return _Mp4(path, painter, fps)
    return _Gif(path, painter) if suffix == ".gif" else _Sheet(path, painter.latent_size)


class _Mp4:
    """H.264 in yuv420p with the index in front, which every browser plays; the last frame is shown for a second."""

    def __init__(self, path: Path, painter: MomentPainter, fps: float) -> None:
        import imageio_ffmpeg

        self._painter, self._path, self._fps = painter, path, fps
        options = ["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"]
        self._pipe: Generator[None, Any, None] = imageio_ffmpeg.write_frames(
            str(path),
            painter.size,
            fps=fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            output_params=options,
            ffmpeg_log_level="error",
        )
        self._pipe.send(None)
        self._sent, self._image = 0, b""

    def add(self, moment: Moment) -> None:
        self._image = np.ascontiguousarray(self._painter.draw(moment)).tobytes()
        self._send()

    def _send(self) -> None:
        self._pipe.send(self._image)
        self._sent += 1

    def finish(self) -> None:
        import imageio_ffmpeg

        for _ in range(round(self._fps) if self._image else 0):
            self._send()
        self._pipe.close()
        # ffmpeg's exit status is not reported, so check that every frame was written.
        try:
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(self._path))
        except RuntimeError:
            written = -1
        if written != self._sent:
            raise OSError("ffmpeg did not write the whole video")

    def close(self) -> None:
        self._pipe.close()


class _Gif:
    """Frames of half the size, each with its own palette, written one by one."""

    def __init__(self, path: Path, painter: MomentPainter) -> None:
        self._painter = painter
        self._size = (round(painter.size[0] * _GIF_SCALE), round(painter.size[1] * _GIF_SCALE))
        self._file = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._waiting: Image.Image | None = None
        self._first = True

    def add(self, moment: Moment) -> None:
        self._write(1000 // _GIF_FPS)
        image = Image.fromarray(self._painter.draw(moment)).resize(self._size, Image.Resampling.LANCZOS)
        self._waiting = image.quantize(_GIF_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)

    def _write(self, milliseconds: int) -> None:
        image, self._waiting = self._waiting, None
        if image is None:
            return
        if self._first:
            header, _ = GifImagePlugin.getheader(image, info={"loop": 0, "optimize": False})
            self._file.writelines(header)
            self._first = False
        self._file.writelines(GifImagePlugin.getdata(image, duration=milliseconds, include_color_table=True))

    def finish(self) -> None:
        self._write(1500)
        self._file.write(b";")
        self._file.close()

    def close(self) -> None:
        self._file.close()


class _Sheet:
    """Keeps a few evenly spaced moments of an episode whose length is unknown until it ends."""

    def __init__(self, path: Path, latent_size: int) -> None:
        self._path, self._spacing, self._latent_size = path, 1, latent_size
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
        Image.fromarray(contact_sheet(chosen, self._latent_size)).save(self._path)

    def close(self) -> None:
        self._kept.clear()
