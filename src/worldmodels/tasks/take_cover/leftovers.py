"""The files and the shared memory of Doom's games: who owns them, whether they fit, and removing what nobody owns.

A game has a folder and three files in shared memory. All of them may be in places that containers share, where neither
process ids nor ages say whether a game still runs. So whoever plays holds a lock on the folder, and a file in shared
memory is in use as long as any process has it open; the kernel answers both questions for every container.

Imports no torch, because workers must start quickly.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

from worldmodels.core.errors import UserError

_SHARED, _PROCESSES = Path("/dev/shm"), Path("/proc")
_KINDS = ("ViZDoomSM", "ViZDoomMQCtr", "ViZDoomMQDoom")
_PREFIX = "worldmodels-doom-"
_GAME_BYTES = 300_000
"""Shared memory of one game: measured 270,336 bytes; its files are longer, but most of their pages are never used."""


class GameFolder:
    """A new temporary folder for a game, which :func:`sweep` leaves alone as long as this process holds it."""

    def __init__(self) -> None:
        while True:
            self._temporary = tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
            self.path = Path(self._temporary.name)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            # On a file system without locks a sweep cannot take the lock either, and so never removes the folder.
            with contextlib.suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self.path.exists():  # a sweep may have removed it before it was locked
                return
            os.close(self._lock)

    def remove(self) -> None:
        """Remove the folder and what is in it."""
        self._temporary.cleanup()
        os.close(self._lock)


def forget_shared_memory(instance: str) -> None:
    """Remove the names of a game's shared memory, which then ends with the processes that use it."""
    for kind in _KINDS:
        (_SHARED / f"{kind}{instance}").unlink(missing_ok=True)


def check_shared_memory(num_games: int) -> None:
    """Raise :class:`UserError` if the shared memory that is free is too little for that many games."""
    with contextlib.suppress(OSError):  # systems without /dev/shm have no such limit
        system = os.statvfs(_SHARED)
        needed, free = num_games * _GAME_BYTES, system.f_bavail * system.f_frsize
        if free < needed:
            raise UserError(
                f"expected {needed / 1e6:.1f} MB of free shared memory in {_SHARED} for {num_games} games of Doom, got "
                f"{free / 1e6:.1f} MB; play fewer at once (--num-envs, --collect.num-envs or --evaluate.num-envs), or "
                f"start a Docker container with --shm-size={max(256, -(-2 * needed // 1_000_000))}m"
            )


def sweep() -> None:
    """Remove what killed processes of this user left behind: games, their folders and their shared memory."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            _kill_games_in(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    for file in _SHARED.glob("ViZDoom*"):
        if _is_unused(file):
            file.unlink(missing_ok=True)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of a game's folder; None if it is in use, another user's or no folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    os.close(descriptor)
    return None


def _is_unused(file: Path) -> bool:
    """Whether a regular file is this user's and no process has it open for writing or mapped; False if unknown.

    The kernel grants a lease for reading only then. Whoever creates shared memory has it open from the first moment, so
    that a game that is just starting is not taken for an unused one.
    """
    lease = getattr(fcntl, "F_SETLEASE", None)
    if lease is None:
        return False
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.getuid() or not stat.S_ISREG(status.st_mode):
            return False
        fcntl.fcntl(descriptor, lease, fcntl.F_RDLCK)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _kill_games_in(folder: Path) -> None:
    """Kill the games that run in a folder whose owner has died (where /proc lists them).

    Games die with their player only on Linux, and only if the folder may hold programs.
    """
    for process in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            at_home = (process / "cwd").readlink() == folder
            if at_home and b"+viz_instance_id" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
