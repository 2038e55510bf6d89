"""Chunks of work on their way to worker processes of this program and back.

They are pickled by cloudpickle, which also takes functions that are defined in the main script or in other functions.
Only this program's own processes read what is written here, through a pipe that nothing else can open.
"""

import hashlib
import io
import pickle
import traceback
from collections.abc import Mapping
from typing import Any

import cloudpickle

from worldmodels.core.read_only import ReadOnly


class Packer:
    """Pickles chunks; objects of :class:`ReadOnly` become references to parts, which are pickled once.

    parts: the pickled objects by digest; use one packer only as long as the objects are alive and unchanged.
    """

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self._digests: dict[int, tuple[str, ReadOnly]] = {}

    def pack(self, content: Any) -> bytes:
        """The pickled content."""
        file = io.BytesIO()
        _Pickler(file, self, content).dump(content)
        return file.getvalue()

    def digest(self, part: ReadOnly) -> str:
        """The reference to an object, which is added to the parts."""
        if id(part) not in self._digests:
            data = self.pack(part)
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            self.parts[digest] = data
            self._digests[id(part)] = digest, part
        return self._digests[id(part)][0]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO, packer: Packer, content: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._packer, self._content = packer, content

    def persistent_id(self, obj: Any) -> str | None:
        if isinstance(obj, ReadOnly) and obj is not self._content:
            return self._packer.digest(obj)
        return None


class Unpacker:
    """Restores what a :class:`Packer` in the parent process pickled, and keeps the parts."""

    def __init__(self) -> None:
        self._pickled: dict[str, bytes] = {}
        self._parts: dict[str, Any] = {}

    def receive(self, parts: Mapping[str, bytes], keep: set[str]) -> None:
        """Add new parts, and forget those that are not in ``keep``."""
        self._pickled = {digest: data for digest, data in self._pickled.items() if digest in keep} | dict(parts)
        self._parts = {digest: part for digest, part in self._parts.items() if digest in keep}

    def unpack(self, data: bytes) -> Any:
        """The content, with the same objects for the same parts every time."""
        unpickler = pickle.Unpickler(io.BytesIO(data))
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
