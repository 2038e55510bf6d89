"""Shards of episodes whose frames are in a bucket, as zarr reads them: from the folder, the cache or the bucket."""

import asyncio
from pathlib import Path

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from worldmodels.core.storage.mirror import Mirror, mirror_of, name_in


def store_of(path: Path) -> "Path | MirroredStore":
    """What zarr opens for the shard in a folder: the folder itself, or for a run in a bucket its mirror."""
    mirror = mirror_of(path)
    return path if mirror is None else MirroredStore(path, mirror)


class MirroredStore(LocalStore):
    """The store of a shard of which some files may be in the cache or in the bucket only. It is only read."""

    def __init__(self, path: Path, mirror: Mirror) -> None:
        super().__init__(path, read_only=True)
        self._mirror, self._name = mirror, name_in(mirror, path)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a file, or some of them; None if there is no such file."""
        kind = default_buffer_prototype() if prototype is None else prototype
        data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else kind.buffer.from_bytes(data)

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        file = self._mirror.open(f"{self._name}/{key}")
        if file is None:
            return None
        with file:
            if isinstance(wanted, RangeByteRequest):
                file.seek(wanted.start)
                return file.read(wanted.end - wanted.start)
            if isinstance(wanted, OffsetByteRequest):
                file.seek(wanted.offset)
            elif isinstance(wanted, SuffixByteRequest):
                file.seek(max(0, file.seek(0, 2) - wanted.suffix))
            return file.read()
