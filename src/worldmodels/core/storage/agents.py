"""Agents at URLs: the one file of an agent, from a bucket, a web server or a hub, verified, in the cache."""

import hashlib
from pathlib import Path

from worldmodels.core.errors import UserError
from worldmodels.core.files import write_bytes
from worldmodels.core.storage.blobs import CacheSettings
from worldmodels.core.storage.hub import LARGEST_AGENT, downloaded
from worldmodels.core.storage.manifest import manifest_of, matches
from worldmodels.core.storage.place import Place
from worldmodels.core.storage.transfer import fetch


def agent_at(url: str, file_name: str) -> Path:
    """The local copy of the agent in a folder, a run or a file at a URL.

    file_name: the name of an agent's file. Raises :class:`UserError` if there is none, if it is too large or if it
    cannot be reached.
    """
    if url.startswith("hf:"):
        return downloaded(url, file_name)
    folder, _, last = url.rstrip("/").rpartition("/")
    is_file = last.endswith(".safetensors")
    place = Place(folder if is_file else url)
    known = {} if is_file else manifest_of(place) or {}
    target = CacheSettings.of_environment().folder / "agents" / hashlib.sha256(place.url.encode()).hexdigest()[:16]
    for name in [last] if is_file else [file_name, f"agent/{file_name}"]:
        path = target / name
        entry = known.get(name)
        if entry is not None:
            _check_size(place, name, entry.size)
            if not matches(path, entry):
                fetch(place, name, entry, path)
            return path
        # Somebody may have copied the file there by other means; its own digest is verified when it is loaded.
        if not known and place.exists(name):
            write_bytes(path, place.read(name, LARGEST_AGENT))
            return path
    raise UserError(f"{url} holds no agent ({file_name}); expected a finished run or a saved agent")


def _check_size(place: Place, name: str, size: int) -> None:
    if size > LARGEST_AGENT:
        limit = f"more than the {LARGEST_AGENT >> 20:,} MiB of the largest agent"
        raise UserError(f"{place.url}/{name} is too large: {size >> 20:,} MiB, {limit}; it is not downloaded")
