"""Runs in buckets and on web servers that are only looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.storage.lease import holder, is_held
from worldmodels.core.storage.manifest import MANIFEST
from worldmodels.core.storage.mirror import Mirror
from worldmodels.core.storage.place import Place

_SHOWN = (".json", ".csv")
"""Kinds of files that lists of runs show something of."""


@dataclass(frozen=True)
class RemoteRun:
    """A run elsewhere. name: relative to the place that was listed; folder: its small files here; in_use: there."""

    name: str
    folder: Path
    in_use: bool


def runs_at(url: str, depth: int) -> list[RemoteRun]:
    """The runs at a URL, or up to ``depth`` folders below it. Raises :class:`UserError` if it cannot be reached.

    One whose files are damaged, or are being written, is left out, and a line says so.
    """
    place = Place(url)
    found = []
    for run in _runs_below(place, depth):
        try:
            folder = Mirror.reading(run.url, lambda name: name.endswith(_SHOWN)).folder
        except UserError as problem:
            say(f"{run.url} is left out: {problem}")
            continue
        name = run.url.removeprefix(place.url).lstrip("/") or "."
        found.append(RemoteRun(name, folder, run.writable and is_held(holder(run))))
    if not found:
        raise UserError(
            f"{place.url} holds no runs that worldmodels has written; expected a folder of runs in a bucket"
        )
    return [run for run in found if (run.folder / "run.json").exists()]


def _runs_below(place: Place, depth: int) -> Iterator[Place]:
    if place.exists(MANIFEST):
        yield place
    elif depth and place.writable:  # web servers do not list folders
        for name in place.folders():
            yield from _runs_below(place / name, depth - 1)
