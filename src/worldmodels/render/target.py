"""Files that are recorded into: checked before any work, and complete or absent afterwards."""

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from worldmodels.core.errors import UserError

SUFFIXES = (".mp4", ".gif", ".png")


def check_target(out: Path) -> None:
    """Raise :class:`UserError` for a file that cannot be written, before any work is done."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot tell the format of {out}: expected a name that ends in .mp4, .gif or .png")
    if not out.parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist; create it or choose another --out")
    if out.is_dir():
        raise UserError(f"{out} is a folder; expected the name of a file to write")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"nothing can be written into the folder {out.parent}; choose another --out")
    if out.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            raise UserError("an .mp4 needs ffmpeg: pip install imageio-ffmpeg, or choose a .gif or .png") from None


@contextlib.contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """A temporary file beside ``out``, which is renamed to ``out`` only if the block ends without an error.

    Raises :class:`UserError` for a file that cannot be written.
    """
    _sweep(out)
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.tmp{out.suffix}")
    try:
        temporary.touch()
        yield temporary
        os.replace(temporary, out)
    except OSError as error:
        reason = (error.strerror or str(error)).splitlines()[0]
        raise UserError(f"could not write {out}: {reason}; free space or choose another --out") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sweep(out: Path) -> None:
    """Remove temporary files of killed recordings of ``out``."""
    for litter in out.parent.glob(f".{glob.escape(out.stem)}.*.tmp{out.suffix}"):
        process = litter.name.removesuffix(f".tmp{out.suffix}").rpartition(".")[2]
        if process.isdigit() and not _runs(int(process)):
            with contextlib.suppress(OSError):
                litter.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # a process of another user
    return True
