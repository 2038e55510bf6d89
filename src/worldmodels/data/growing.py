"""Memory for the steps of episodes of unknown length, which grows with the steps that are recorded."""

import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from worldmodels.core.chunks import FRAME_CHUNK

_PACKED_FROM = 48
"""A row of more chunks is compressed, so that long episodes fit in memory."""
_LEVEL = 1
"""Of zlib: the fastest one makes frames of simple games fifty times smaller, those of CarRacing three times."""
_SHAPE = (64, 64, 3)


class PackedFrames(Sequence[np.ndarray]):
    """Frames (count, 64, 64, 3) uint8 in chunks of FRAME_CHUNK, most of them compressed.

    Slices are arrays, made when they are asked for, as is the whole by ``numpy.asarray``. chunks: arrays, or what
    :func:`packed` made of them; count: of the frames.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, chunks: Sequence[np.ndarray | bytes], count: int) -> None:
        self._chunks, self._count = list(chunks), count

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """(count, 64, 64, 3)."""
        return (self._count, *_SHAPE)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the frames take now."""
        return sum(len(chunk) if isinstance(chunk, bytes) else chunk.nbytes for chunk in self._chunks)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            place = range(self._count)[index]
            return unpacked(self._chunks[place // FRAME_CHUNK])[place % FRAME_CHUNK]
        start, stop, step = index.indices(self._count)
        if step != 1:
            return self[:][index]
        if stop <= start:
            return np.zeros((0, *_SHAPE), np.uint8)
        first, last = start // FRAME_CHUNK, (stop - 1) // FRAME_CHUNK
        whole = np.concatenate([unpacked(chunk) for chunk in self._chunks[first : last + 1]])
        return whole[start - first * FRAME_CHUNK : stop - first * FRAME_CHUNK]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def packed(chunk: np.ndarray) -> bytes:
    """A chunk of frames, compressed."""
    return zlib.compress(chunk.tobytes(), _LEVEL)


def unpacked(chunk: np.ndarray | bytes) -> np.ndarray:
    """A chunk of frames (FRAME_CHUNK, 64, 64, 3) as an array."""
    if isinstance(chunk, bytes):
        return np.frombuffer(zlib.decompress(chunk), np.uint8).reshape(-1, *_SHAPE)
    return chunk


class GrowingFrames:
    """The frames (64, 64, 3) uint8 of N rows of different lengths; each row grows by FRAME_CHUNK frames at a time.

    Those of a long row are compressed, except for its last ones.
    """

    def __init__(self, count: int) -> None:
        self._chunks: list[list[np.ndarray | bytes]] = [[] for _ in range(count)]

    def put(self, rows: np.ndarray, steps: np.ndarray, frames: np.ndarray) -> None:
        """Store ``frames`` (n, 64, 64, 3): one for each of ``rows`` (n,), after its ``steps`` (n,) frames so far."""
        for row, step, frame in zip(rows.tolist(), steps.tolist(), frames, strict=True):
            chunks = self._chunks[row]
            if step == FRAME_CHUNK * len(chunks):
                if len(chunks) >= _PACKED_FROM:
                    # All of them when the row becomes a long one, and then one at a time.
                    chunks[:] = [chunk if isinstance(chunk, bytes) else packed(chunk) for chunk in chunks]
                chunks.append(np.empty((FRAME_CHUNK, *_SHAPE), np.uint8))
            last = chunks[-1]
            assert isinstance(last, np.ndarray)
            last[step % FRAME_CHUNK] = frame

    def at(self, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The frames (n, 64, 64, 3) at ``steps`` (n,) of ``rows`` (n,)."""
        places = zip(rows.tolist(), steps.tolist(), strict=True)
        return np.stack([unpacked(self._chunks[row][step // FRAME_CHUNK])[step % FRAME_CHUNK] for row, step in places])

    def of(self, row: int, count: int) -> np.ndarray:
        """The first ``count`` frames of a row, (count, 64, 64, 3); of a long row, :class:`PackedFrames`.

        The memory is shared and not held twice.
        """
        if len(self._chunks[row]) > _PACKED_FROM:
            return cast(np.ndarray, PackedFrames(self._chunks[row], count))
        whole = np.concatenate([unpacked(chunk) for chunk in self._chunks[row]])
        self._chunks[row] = list(whole.reshape(-1, FRAME_CHUNK, *_SHAPE))
        return whole[:count]


class GrowingNumbers:
    """Numbers of N rows, (..., *shape) float32; the memory of all rows doubles when the longest one has filled it."""

    def __init__(self, count: int, *shape: int) -> None:
        self._values = np.zeros((count, FRAME_CHUNK, *shape), np.float32)

    def put(self, rows: np.ndarray, steps: np.ndarray, values: np.ndarray) -> None:
        """Store ``values`` (n, *shape): one for each of ``rows`` (n,), after its ``steps`` (n,) values so far."""
        if steps.max(initial=0) >= self._values.shape[1]:
            self._values = np.concatenate([self._values, np.zeros_like(self._values)], axis=1)
        self._values[rows, steps] = values

    def of(self, row: int, count: int) -> np.ndarray:
        """The first ``count`` values of a row, (count, *shape); not a copy."""
        return self._values[row, :count]
