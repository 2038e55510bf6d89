"""The manifest of a folder: size and SHA-256 of each of its files, in one JSON file that is written last."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from worldmodels.core.errors import UserError
from worldmodels.core.files import LARGEST_JSON, json_bytes, parsed_json
from worldmodels.core.storage.place import Missing, Place

MANIFEST = "manifest.json"
_FORMAT = 1
_MOST_FILES = 400_000
_LARGEST_FILE = 1 << 40
_LONGEST_NAME = 512
_NOT_COPIED = {"lock", MANIFEST}
"""Names of files that belong to one copy of a folder."""
_PIECE = 1 << 20
_TEMPORARY = "is kept for temporary files"


@dataclass(frozen=True)
class Entry:
    """What is known of a file: its bytes and their SHA-256, in hexadecimal digits."""

    size: int
    sha256: str


Entries = Mapping[str, Entry]
"""Files by their names relative to the folder, with slashes."""


def manifest_of(place: Place) -> dict[str, Entry] | None:
    """The files of a folder in another place; None if there is no folder that worldmodels has written.

    Raises :class:`UserError` for a manifest that is damaged, too large, or names files outside of the folder.
    """
    try:
        data = place.read(MANIFEST, LARGEST_JSON)
    except Missing:
        return None
    return parsed(data, f"{place.url}/{MANIFEST}")


def parsed(data: bytes, name: str) -> dict[str, Entry]:
    """The files in the bytes of a manifest, checked; ``name`` is for errors, as in :func:`manifest_of`."""
    content = parsed_json(data, name, checksum=True, repair="copy the folder again: worldmodels sync SOURCE TARGET")
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or content.get("format") != _FORMAT:
        raise UserError(f"{name} is not a manifest that this version of worldmodels can read; copy the folder again")
    if len(files) > _MOST_FILES:
        raise UserError(f"{name} names {len(files):,} files, more than the {_MOST_FILES:,} that are read")
    entries = {}
    for path, about in files.items():
        problem = wrong_name(path)
        if problem:
            raise UserError(f"{name} names the file {path[:80]!r}, which {problem}; nothing is read from that folder")
        if not _is_entry(about):
            raise UserError(f"{name} has no size and SHA-256 for {path!r}; copy the folder again")
        entries[path] = Entry(*about)
    folders = {str(parent) for path in entries for parent in PurePosixPath(path).parents}
    for path in entries:
        if path in folders:
            raise UserError(f"{name} names {path!r} as a file and as a folder; nothing is read from that folder")
    return entries


def manifest_bytes(entries: Entries) -> bytes:
    """The manifest of these files. Raises :class:`UserError` if there are too many."""
    files = {name: [entry.size, entry.sha256] for name, entry in sorted(entries.items())}
    data = json_bytes({"format": _FORMAT, "files": files}, checksum=True)
    if len(files) > _MOST_FILES or len(data) > LARGEST_JSON:
        raise UserError(f"{len(files):,} files are more than a manifest can name; copy parts of the folder")
    return data


def wrong_name(name: str) -> str:
    """What is wrong with the name of a file in a manifest, in words; empty for a name that stays in its folder."""
    parts = name.split("/")
    if name.startswith(("/", "\\")) or ":" in name or "\\" in name:
        return "is not relative"
    if any(part in ("", ".", "..") for part in parts):
        return "leaves its folder"
    if len(name.encode(errors="replace")) > _LONGEST_NAME or not name.isprintable():
        return "no file may be called"
    return _TEMPORARY if any(part.startswith(".") for part in parts) or parts[-1] in _NOT_COPIED else ""


def _is_entry(about: object) -> bool:
    if not isinstance(about, list) or len(about) != 2:
        return False
    size, sha256 = about
    is_size = isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= _LARGEST_FILE
    return is_size and isinstance(sha256, str) and len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")


def files_below(folder: Path) -> Iterator[str]:
    """Names of the files of a local folder that are copied: no hidden or temporary ones, no locks and no links.

    Raises :class:`UserError` for a file that cannot be copied because of its name.
    """
    for directory, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(directory) / name
            relative = path.relative_to(folder).as_posix()
            problem = wrong_name(relative)
            if problem == _TEMPORARY or not stat.S_ISREG(path.lstat().st_mode):
                continue
            if problem:
                raise UserError(f"{str(path)!r} cannot be copied, because its name {problem}; rename or remove it")
            yield relative


def entry_of(path: Path) -> Entry:
    """Size and SHA-256 of a local file, which must not change meanwhile: else a :class:`UserError`."""
    for _ in range(3):
        before = path.stat()
        digest, size = hashlib.sha256(), 0
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
        if same_state(before, path.stat()) and size == before.st_size:
            return Entry(size, digest.hexdigest())
    raise UserError(f"{path} changes while it is copied; wait for the process that writes it, then run again")


def same_state(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file is the same and was not written between two calls of stat."""
    return (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


def matches(path: Path, entry: Entry) -> bool:
    """Whether a local file has this content."""
    try:
        return path.is_file() and path.stat().st_size == entry.size and entry_of(path) == entry
    except OSError:
        return False


def in_order(names: Iterator[str] | Entries) -> list[str]:
    """Names in the order in which files are put in place: data, then what describes it, then what marks it finished."""
    last = {"done.json": 2, "run.json": 3, "summary.json": 3}
    return sorted(names, key=lambda name: (last.get(name.rpartition("/")[2], int(name.endswith(".json"))), name))
