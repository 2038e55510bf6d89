"""Copying a folder, such as a run, from or to another place: what is there already stays, and everything is verified.

In a bucket, the files become visible together, when the manifest is written after all of them. On a disk, they are
copied into a hidden folder beside the target, which gets its name when it is complete.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import LARGEST_JSON, disk_errors, flush
from worldmodels.core.storage.lease import Lease
from worldmodels.core.storage.manifest import (
    MANIFEST,
    Entries,
    Entry,
    entry_of,
    files_below,
    in_order,
    manifest_bytes,
    manifest_of,
    matches,
    parsed,
)
from worldmodels.core.storage.place import Missing, Place, is_url, plain_path
from worldmodels.core.storage.transfer import copy_all, fetch

_UNFINISHED = ".unfinished.json"
"""The manifest of what an unfinished copy has brought into a bucket so far."""
_NOTE_SECONDS = 10.0
_SAME = ("task", "preset", "seed", "made_with")
"""Entries of run.json that are equal in two copies of one run."""


@dataclass(frozen=True)
class Copied:
    """What a copy did: files in the folder, and how many of them with how many bytes had to be copied."""

    files: int
    copied: int
    bytes: int


def sync(source: str | Path, target: str | Path, verify: bool = False) -> Copied:
    """Make ``target`` hold every file of ``source``; each is a local folder or the URL of one.

    Files of the target that the source does not have are kept. verify: read the files that a bucket holds already,
    instead of trusting its manifest. Raises :class:`UserError` if one of both is in use, damaged or cannot be reached;
    the same call then goes on where it stopped.
    """
    if is_url(target):
        return _into_bucket(source, Place(target), verify)
    return _into_folder(source, plain_path(target))


def _source_of(source: str | Path) -> tuple[Place | Path, dict[str, Entry]]:
    """The source and its files."""
    if not is_url(source):
        folder = plain_path(source)
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; expected a run, a store of episodes or an agent to copy")
        entries = {name: entry_of(folder / name) for name in files_below(folder)}
        if not entries:
            raise UserError(f"{folder} has no files to copy")
        links = sum(path.is_symlink() for path in folder.rglob("*"))
        if links:
            say(f"{folder} holds links ({links}), which are not copied, nor is what they lead to")
        return folder, entries
    place = Place(source)
    known = manifest_of(place)
    if known is None:
        raise UserError(f"{place.url} holds nothing that worldmodels has copied there: it has no {MANIFEST}")
    return place, known


def _into_bucket(source: str | Path, target: Place, verify: bool) -> Copied:
    origin, wanted = _source_of(source)
    with Lease.taken(target) as lease:
        known = manifest_of(target) or {}
        if "run.json" in known and "run.json" in wanted:
            mine, theirs = _json_of(origin, "run.json"), _json_of(target, "run.json")
            _check_same(mine, theirs, target.url)
        there, listed = known | _unfinished(target), target.sizes()
        good = {
            name: entry
            for name, entry in there.items()
            if listed.get(name) == entry.size and wanted.get(name, entry) == entry
        }
        if verify:
            good = {name: entry for name, entry in good.items() if _verified(target, name, entry)}
        names = [name for name in in_order(wanted) if good.get(name) != wanted[name]]
        put_files(origin, target, wanted, names, good, lease)
        write_manifest(target, good | wanted)
    return Copied(len(wanted), len(names), sum(wanted[name].size for name in names))


def put_files(
    origin: Place | Path,
    target: Place,
    wanted: Entries,
    names: list[str],
    good: dict[str, Entry],
    lease: Lease,
    interruptible: bool = True,
) -> None:
    """Copy the files called ``names`` into a bucket, and note from time to time which are there, beside ``good``."""
    noted, arrived = time.monotonic(), dict[str, Entry]()

    def put(name: str) -> None:
        if isinstance(origin, Path):
            target.upload(origin / name, name)
            if not matches(origin / name, wanted[name]):
                raise UserError(f"{origin / name} has changed while it was copied; run the same command again")
        else:
            with _temporary() as file:
                fetch(origin, name, wanted[name], file)
                target.upload(file, name)
        if target.size(name) not in (None, wanted[name].size):
            raise UserError(f"{target.url}/{name} did not arrive completely; run the same command again")

    def note(name: str) -> None:
        nonlocal noted
        lease.check()
        arrived[name] = wanted[name]
        if time.monotonic() - noted > _NOTE_SECONDS:
            target.write(_UNFINISHED, manifest_bytes(good | arrived))
            noted = time.monotonic()

    try:
        copy_all(names, wanted, f"copy to {target.name}", put, note, interruptible)
    except BaseException:
        with contextlib.suppress(UserError):
            target.write(_UNFINISHED, manifest_bytes(good | arrived))
        raise
    lease.check()


def write_manifest(target: Place, entries: Entries) -> None:
    """Make these files visible, at once."""
    target.write(MANIFEST, manifest_bytes(entries))
    target.remove(_UNFINISHED)


def _unfinished(target: Place) -> dict[str, Entry]:
    with contextlib.suppress(UserError):
        return parsed(target.read(_UNFINISHED, LARGEST_JSON), _UNFINISHED)
    return {}


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="worldmodels-") as folder:
        yield Path(folder) / "file"


def _verified(place: Place, name: str, entry: Entry) -> bool:
    with _temporary() as file:
        if place.download(name, entry.size, file) == entry.sha256:
            return True
    say(f"{place.url}/{name} is damaged; copying it again")
    return False


def _into_folder(source: str | Path, target: Path) -> Copied:
    if not target.name:
        target = target.resolve()
    staging = target.with_name(f".{target.name}.sync")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is not a folder; choose another target")
    origin, wanted = _source_of(source)
    if "run.json" in wanted and (target / "run.json").is_file():
        _check_same(_json_of(origin, "run.json"), _json_of(target, "run.json"), str(target))
    with _locked(staging.with_name(f".{target.name}.sync.lock")), _unused(target):
        with disk_errors(staging):
            if staging.is_symlink():  # somebody else's, through whom nothing is written
                staging.unlink()
            staging.mkdir(parents=True, exist_ok=True)
        # Read and compared, so that what a killed process or another program left is not taken for a copy.
        missing = [name for name in in_order(wanted) if not matches(target / name, wanted[name])]
        names = [name for name in missing if not matches(staging / name, wanted[name])]

        def get(name: str) -> None:
            if isinstance(origin, Path):
                with disk_errors(target / name):
                    _copy(origin / name, staging / name, wanted[name])
            else:
                fetch(origin, name, wanted[name], staging / name)

        copy_all(names, wanted, f"copy to {target.name}", get, lambda name: None)
        _put_in_place(staging, target, missing)
    return Copied(len(wanted), len(names), sum(wanted[name].size for name in names))


def _copy(source: Path, target: Path, entry: Entry) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as read, open(target, "wb") as written:
        while piece := read.read(1 << 20):
            written.write(piece)
    if entry_of(target) != entry:
        target.unlink()
        raise UserError(f"{source} has changed while it was copied; run the same command again")


def _put_in_place(staging: Path, target: Path, names: list[str]) -> None:
    """Give the complete copies their names: all at once in a new folder, else one after the other."""
    import shutil

    with disk_errors(target):
        for path in staging.rglob("*"):
            if path.is_file() and path.relative_to(staging).as_posix() not in names:
                path.unlink()  # of an earlier, other copy
            else:
                flush(path)
        if not target.exists():
            os.replace(staging, target)
        else:
            for name in names:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / name, target / name)
                flush((target / name).parent)
            shutil.rmtree(staging)
        flush(target.parent)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file beside the target, so that two copies to it do not mix; it is removed at the end."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115
    with file:
        problem = f"another process copies to {path.name[1:].removesuffix('.sync.lock')} at this moment"
        _lock(file, problem)
        if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise UserError(f"{problem}; run again")  # it has just finished, and removed the file
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _unused(target: Path) -> Iterator[None]:
    """Hold the lock of the run that is the target, if there is one."""
    if not (target / "lock").is_file():
        yield
        return
    with open(target / "lock", "rb") as file:
        _lock(file, f"{target} is in use by another process")
        yield


def _lock(file: Any, problem: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{problem}; wait for it, or choose another target") from None
    except OSError:  # some network file systems have no locks
        return


def _json_of(where: Place | Path, name: str) -> Any:
    try:
        data = where.read(name, LARGEST_JSON) if isinstance(where, Place) else (where / name).read_bytes()
        return json.loads(data)
    except (OSError, ValueError, RecursionError, Missing):
        return None


def _check_same(mine: Any, theirs: Any, target: str) -> None:
    """Raise :class:`UserError` if the target holds another run than the one that is copied."""
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return
    if any(mine.get(name) != theirs.get(name) for name in _SAME):
        raise UserError(f"{target} holds another run ({theirs.get('task')}, seed {theirs.get('seed')}); choose another")
