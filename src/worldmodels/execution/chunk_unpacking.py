"""Chunks of work as worker processes receive them, and errors on their way back; see ``chunk_packing.py``.

Imports no torch, so that a worker starts quickly.
"""

import io
import pickle
import traceback
from collections.abc import Mapping
from typing import Any

Sent = tuple[bytes, list[bytearray]]
"""A pickled object on its way: what pickle wrote, and the contents of its arrays."""


class Unpacker:
    """Restores what a ``Packer`` in the parent process pickled, and keeps the parts."""

    def __init__(self) -> None:
        self._pickled: dict[str, Sent] = {}
        self._parts: dict[str, Any] = {}

    def receive(self, parts: Mapping[str, Sent], keep: set[str]) -> None:
        """Add new parts, and forget those that are not in ``keep``."""
        self._pickled = {digest: data for digest, data in self._pickled.items() if digest in keep} | dict(parts)
        self._parts = {digest: part for digest, part in self._parts.items() if digest in keep}

    def unpack(self, sent: Sent) -> Any:
        """The content, with the same objects for the same parts every time."""
        data, buffers = sent
        unpickler = pickle.Unpickler(io.BytesIO(data), buffers=buffers)
        unpickler.persistent_load = self._part  # type: ignore[method-assign]
        return unpickler.load()

    def _part(self, digest: str) -> Any:
        if digest not in self._parts:
            self._parts[digest] = self.unpack(self._pickled.pop(digest))
        return self._parts[digest]


def portable(error: Exception) -> Exception:
    """The exception with its traceback as a note, so that it can be sent; its text if it cannot be pickled."""
    trace = "".join(traceback.format_exception(error))
    try:
        copy: Exception = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"in a worker process:\n{trace}")
    return copy
