"""A bounded folder of files from buckets, each named by the SHA-256 of its content; the least recently used ones go.

Any file may be deleted at any time, because it can be read from its bucket again. Files appear complete, by renaming,
so that a killed process leaves none that is cut, and several processes may share the folder.
"""

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from worldmodels.core.errors import UserError
from worldmodels.core.files import disk_errors
from worldmodels.core.settings import check, number, text
from worldmodels.core.storage.manifest import Entry, matches

_CACHE, _LIMIT = "WORLDMODELS_CACHE", "WORLDMODELS_CACHE_GIB"
_LITTER_SECONDS = 86_400.0
"""A temporary file to which nothing has been written for so long is that of a process that was killed."""


@dataclass(frozen=True)
class CacheSettings:
    """Where copies of files from other places are kept; from the environment."""

    folder: Path = text(Path.home() / ".cache" / "worldmodels")
    """The folder, by the environment variable WORLDMODELS_CACHE."""
    gib: float = number(50.0, above=0)
    """The most GiB of frames in it, by the environment variable WORLDMODELS_CACHE_GIB."""

    @classmethod
    def of_environment(cls) -> "CacheSettings":
        """The settings of this process. Raises :class:`UserError` for a limit that is not a positive number."""
        folder = os.environ.get(_CACHE)
        given = os.environ.get(_LIMIT, "")
        try:
            settings = cls(
                folder=Path(folder) if folder else Path.home() / ".cache" / "worldmodels",
                gib=float(given) if given else 50.0,
            )
            check(settings)
        except (ValueError, UserError):
            raise UserError(f"expected a positive number of GiB in {_LIMIT}, got {given!r}") from None
        return settings


class Blobs:
    """The files in ``folder``, of at most ``limit`` bytes together; a single larger one is kept, too."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._verified: set[str] = set()
        self._known: OrderedDict[str, int] | None = None
        self._total = 0

    def path(self, sha256: str) -> Path:
        """Where the file with this content is, if it is here."""
        return self._folder / sha256[:2] / sha256

    def open(self, entry: Entry, fetch: Callable[[Path], None]) -> BinaryIO:
        """The file with this content, open for reading, which stays so if it is removed from the cache meanwhile.

        fetch: writes it to a path, when it is not here. A file that an earlier process left is read and compared before
        it is used for the first time.
        """
        path = self.path(entry.sha256)
        with self._lock:
            with contextlib.suppress(FileNotFoundError):
                if entry.sha256 in self._verified or matches(path, entry):
                    file = open(path, "rb")  # noqa: SIM115
                    if os.fstat(file.fileno()).st_size == entry.size:
                        self._used(entry)
                        return file
                    file.close()
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                fetch(temporary)
                with disk_errors(path):
                    file = open(temporary, "rb")  # noqa: SIM115
                    os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            self._used(entry)
            return file

    def _used(self, entry: Entry) -> None:
        """Note that a file was used now, and remove those that were used least recently."""
        self._verified.add(entry.sha256)
        if self._known is None:
            self._known = OrderedDict(sorted(self._found().items(), key=lambda item: self._when(item[0])))
            self._total = sum(self._known.values())
        self._total += entry.size - self._known.pop(entry.sha256, 0)
        self._known[entry.sha256] = entry.size
        with contextlib.suppress(OSError):
            os.utime(self.path(entry.sha256))  # for other processes
        while self._total > self._limit and len(self._known) > 1:
            sha256, size = self._known.popitem(last=False)
            self._total -= size
            self._verified.discard(sha256)
            with contextlib.suppress(OSError):
                self.path(sha256).unlink()

    def _found(self) -> dict[str, int]:
        """Sizes of the files that are here; what killed processes left is removed."""
        found, now = {}, time.time()
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(OSError):
                if path.name.startswith("."):
                    # Their numbers say nothing here: processes in containers and on other machines share the folder.
                    if now - path.stat().st_ctime > _LITTER_SECONDS:
                        path.unlink()
                elif path.is_file():
                    found[path.name] = path.stat().st_size
        return found

    def _when(self, sha256: str) -> float:
        try:
            return self.path(sha256).stat().st_mtime
        except OSError:
            return 0.0
