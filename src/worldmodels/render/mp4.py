"""An encoder of H.264 videos, which works while the pictures of the next moments are made."""

import contextlib
import queue
import subprocess
import tempfile
import threading
from pathlib import Path

import numpy as np

from worldmodels.render.moment import Moment, MomentPainter

_WAITING = 24
"""Pictures that may wait for ffmpeg; one has about 2 MB."""


class Mp4:
    """H.264 in yuv420p with the index in front, which every browser plays; the last frame is shown for a second.

    A thread hands the pictures to ffmpeg, a process of its own, so that the simulator need not wait for it. ``add`` and
    ``finish`` raise OSError if ffmpeg fails.
    """

    def __init__(self, path: Path, painter: MomentPainter, fps: float) -> None:
        import imageio_ffmpeg

        self._painter, self._fps, self._image = painter, fps, b""
        size = "x".join(map(str, painter.size))
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{fps:.6f}", "-i", "-"]
        wanted = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-preset", "veryfast"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *given, *wanted, "-movflags", "+faststart"]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        # A session of its own, so that Ctrl-C in a terminal does not end it before its input is complete.
        self._ffmpeg = subprocess.Popen(
            [*command, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            start_new_session=True,
        )
        self._queue: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._broken = self._abandoned = False
        self._thread = threading.Thread(target=self._hand_over, daemon=True)
        self._thread.start()

    def _hand_over(self) -> None:
        assert self._ffmpeg.stdin is not None
        while (image := self._queue.get()) is not None:
            if not self._broken and not self._abandoned:
                try:
                    self._ffmpeg.stdin.write(image)
                except OSError:
                    self._broken = True
        with contextlib.suppress(OSError):
            self._ffmpeg.stdin.close()

    def add(self, moment: Moment) -> None:
        """Encode one moment."""
        self._image = np.ascontiguousarray(self._painter.draw(moment)).tobytes()
        self._put()

    def _put(self) -> None:
        if self._broken:
            self._fail()
        self._queue.put(self._image)

    def finish(self) -> None:
        """Complete the file."""
        for _ in range(round(self._fps) if self._image else 0):
            self._put()
        self._end_thread()
        if self._ffmpeg.wait() or self._broken:
            self._fail()

    def close(self) -> None:
        """End ffmpeg, whether or not the file is complete."""
        self._abandoned = True
        if self._ffmpeg.poll() is None:
            self._ffmpeg.kill()
        self._end_thread()
        self._ffmpeg.wait()
        self._said.close()

    def _end_thread(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _fail(self) -> None:
        """Raise OSError with the reason that ffmpeg gave last, without the name of the temporary file."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._ffmpeg.wait(5)
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        reasons = [line.rpartition(": ")[2].strip() for line in lines if line.strip()]
        raise OSError(f"ffmpeg ended early ({reasons[-1] if reasons else f'status {self._ffmpeg.poll()}'})")
