"""A run in a bucket, worked on in a local folder: finished parts are written through, frames are read when needed.

The local folder holds all files except those with frames, which take almost all the space: as soon as they are in the
bucket they are in the cache (``blobs.py``) only. What differs between folder and bucket when a run is opened was left
by a process that was killed, or done on another machine; the record of what was equal last tells which.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import LARGEST_JSON, disk_errors, write_bytes
from worldmodels.core.storage.blobs import Blobs, CacheSettings
from worldmodels.core.storage.lease import Lease
from worldmodels.core.storage.manifest import (
    MANIFEST,
    Entry,
    entry_of,
    files_below,
    in_order,
    manifest_bytes,
    manifest_of,
    matches,
    parsed,
)
from worldmodels.core.storage.place import Place
from worldmodels.core.storage.sync import put_files, write_manifest
from worldmodels.core.storage.transfer import copy_all, fetch

_FRAMES = re.compile(r"(.*\.zarr)/frames/c/.*")
_GIB = 1 << 30
_active: dict[Path, "Mirror"] = {}


class Mirror:
    """The local folder of a run in a bucket. Inside :meth:`working`, or after :meth:`reading`, stages find it by path.

    folder: the local folder, which has the name of the run; entries: the files that the bucket holds.
    """

    def __init__(self, place: Place) -> None:
        settings = CacheSettings.of_environment()
        key = hashlib.sha256(place.url.encode()).hexdigest()[:16]
        self.place, self.folder = place, settings.folder / "mirrors" / key / "local" / place.name
        self.entries: dict[str, Entry] = {}
        self._blobs = Blobs(settings.folder / "blobs", int(settings.gib * _GIB))
        self._base_file = self.folder.parent.parent / MANIFEST
        self._lease: Lease | None = None
        self._states: dict[str, tuple[tuple[int, int, int], Entry]] = {}
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    @contextlib.contextmanager
    def working(cls, url: str) -> Iterator["Mirror"]:
        """The folder of a run that this process alone may change; at the end all of it is written to the bucket.

        Raises :class:`UserError` if another process works on the run, or if the bucket cannot be reached.
        """
        mirror = cls(Place(url))
        with Lease.taken(mirror.place) as lease:
            mirror._lease = lease
            mirror._reconcile()
            _active[mirror.folder.resolve()] = mirror
            try:
                yield mirror
            except BaseException:
                # The first error is the one to report; what could not be written is written by the next command.
                with contextlib.suppress(UserError):
                    mirror.push(interruptible=False)
                raise
            else:
                mirror.push(interruptible=False)
            finally:
                del _active[mirror.folder.resolve()]

    @classmethod
    def reading(cls, url: str, wanted: Callable[[str], bool] = lambda name: True) -> "Mirror":
        """The folder of a run that is only read, with all files whose names are ``wanted``, except frames.

        Raises :class:`UserError` if there is nothing at the URL that worldmodels has written.
        """
        mirror = cls(Place(url))
        known = manifest_of(mirror.place)
        if known is None:
            raise UserError(f"{mirror.place.url} holds nothing that worldmodels has written: it has no {MANIFEST}")
        # In a folder of its own, so that nothing of a run that is worked on is replaced.
        mirror.folder = mirror.folder.parent.parent / "read" / mirror.folder.name
        mirror.folder.mkdir(parents=True, exist_ok=True)
        mirror._take({name: entry for name, entry in known.items() if wanted(name) and not _FRAMES.fullmatch(name)})
        for name in [name for name in files_below(mirror.folder) if name not in known]:
            (mirror.folder / name).unlink(missing_ok=True)
        mirror.entries = known
        _active[mirror.folder.resolve()] = mirror
        return mirror

    def push(self, below: Path | None = None, interruptible: bool = True) -> None:
        """Write what has changed (``below`` a folder, None: anywhere) to the bucket, where it becomes visible at once.

        Files that are gone here are gone there, too, except frames that are in the bucket.
        """
        assert self._lease is not None
        self._lease.check()
        start = below or self.folder
        prefix = "" if below is None else f"{below.relative_to(self.folder).as_posix()}/"
        names = [f"{prefix}{name}" for name in files_below(start)]
        if below is not None:  # what says which run this is must be there, too
            names += [path.name for path in self.folder.glob("run.json")]
        found = {name: self._entry(name) for name in names}
        changed = [name for name in in_order(found) if self.entries.get(name) != found[name]]
        gone = [name for name in self.entries if name.startswith(prefix) and name not in found]
        # All files of a shard that was written just now are here.
        gone = [name for name in gone if start.suffix == ".zarr" or not self._is_elsewhere(name)]
        if changed or gone:
            entries = {name: entry for name, entry in (self.entries | found).items() if name not in gone}
            put_files(self.folder, self.place, found, changed, self.entries, self._lease, interruptible)
            write_manifest(self.place, entries)
            for name in gone:
                self.place.remove(name)
            self.entries = entries
            self._note()
        self._cache_frames(found)

    def open(self, name: str) -> BinaryIO | None:
        """A file of the run, from the folder, the cache or the bucket, open for reading; None if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return open(self.folder / name, "rb")
        entry = self.entries.get(name)
        if entry is None:
            return None
        return self._blobs.open(entry, lambda target: fetch(self.place, name, entry, target))

    def names(self, below: Path) -> list[str]:
        """Names of the files below a folder that are in the bucket or here."""
        prefix = f"{below.relative_to(self.folder).as_posix()}/"
        here = {f"{prefix}{name}" for name in files_below(below)}
        return sorted(here | {name for name in self.entries if name.startswith(prefix) and _FRAMES.fullmatch(name)})

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a file that is not here is one of frames, of a shard that is here."""
        shard = _FRAMES.fullmatch(name)
        return shard is not None and (self.folder / shard[1]).is_dir()

    def _entry(self, name: str) -> Entry:
        """Size and checksum of a local file, which is read only if it has changed."""
        about = (self.folder / name).stat()
        state = about.st_size, about.st_mtime_ns, about.st_ino
        if self._states.get(name, (None,))[0] != state:
            self._states[name] = state, entry_of(self.folder / name)
        return self._states[name][1]

    def _reconcile(self) -> None:
        """Bring folder and bucket together: what changed on one side since they were equal changes on the other.

        Where both have changed, the bucket counts, because it has what was finished last.
        """
        base = self._base()
        remote = manifest_of(self.place) or {}
        local = {name: self._entry(name) for name in files_below(self.folder)}
        take, drop, replaced = dict[str, Entry](), list[str](), 0
        for name in sorted(base.keys() | remote.keys() | local.keys()):
            before, there, here = base.get(name), remote.get(name), local.get(name)
            if here is None and self._is_elsewhere(name):
                here = before
            if here == there or there == before:
                continue  # equal, or changed here only, which is written to the bucket below
            replaced += here != before
            if there is None:
                drop.append(name)
            elif not _FRAMES.fullmatch(name):
                take[name] = there
            elif name in local:
                drop.append(name)
        if replaced:
            say(f"{self.place.url} was continued elsewhere: {replaced} files in {self.folder} are replaced by its own")
        self._take(take)
        for name in drop:
            (self.folder / name).unlink(missing_ok=True)
        self.entries = remote
        self._note()
        self.push()

    def _take(self, entries: dict[str, Entry]) -> None:
        """Copy these files here, data first."""

        def get(name: str) -> None:
            fetch(self.place, name, entries[name], self.folder / name)

        names = [name for name in in_order(entries) if not matches(self.folder / name, entries[name])]
        if names:
            copy_all(names, entries, f"read from {self.place.name}", get, lambda name: None)

    def _cache_frames(self, names: Iterable[str]) -> None:
        """Move frames that are in the bucket into the cache, where the least recently used are removed."""
        for name in names:
            entry = self.entries.get(name)
            if entry is None or not _FRAMES.fullmatch(name):
                continue
            path = self.folder / name

            def move(target: Path, path: Path = path) -> None:
                shutil.move(path, target)

            self._blobs.open(entry, move).close()
            path.unlink(missing_ok=True)

    def _base(self) -> dict[str, Entry]:
        """The files of both sides when they were equal last."""
        if not any(self.folder.iterdir()):
            return {}
        with contextlib.suppress(OSError, UserError):
            if self._base_file.stat().st_size <= LARGEST_JSON:
                return parsed(self._base_file.read_bytes(), str(self._base_file))
        return {}

    def _note(self) -> None:
        write_bytes(self._base_file, manifest_bytes(self.entries))


def mirror_of(path: Path) -> Mirror | None:
    """The mirror whose folder holds a path; None for a path of no mirror."""
    if not _active:
        return None
    whole = path.resolve()
    return next((mirror for folder, mirror in _active.items() if whole.is_relative_to(folder)), None)


def name_in(mirror: Mirror, path: Path) -> str:
    """The name of a file in a mirror."""
    return path.resolve().relative_to(mirror.folder.resolve()).as_posix()


def written(path: Path) -> None:
    """Say that a folder is complete: if it is in a mirror that this process works on, it is written to the bucket."""
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.push(mirror.folder / name_in(mirror, path))


def files_of(path: Path) -> list[Path]:
    """The files below a folder in order, those included that are in a bucket only."""
    files = {file for file in path.rglob("*") if file.is_file()}
    mirror = mirror_of(path)
    if mirror is not None:
        start = mirror.folder / name_in(mirror, path)
        files |= {path / (mirror.folder / name).relative_to(start) for name in mirror.names(start)}
    return sorted(files)


def open_file(path: Path) -> BinaryIO:
    """A file, open for reading, which may be in a bucket only."""
    mirror = mirror_of(path)
    found = mirror.open(name_in(mirror, path)) if mirror is not None else None
    return found if found is not None else open(path, "rb")
