"""Memory for the steps of episodes of unknown length, which grows with the steps that are recorded."""

import numpy as np

from worldmodels.core.chunks import FRAME_CHUNK


class GrowingFrames:
    """The frames (64, 64, 3) uint8 of N rows of different lengths; each row grows by FRAME_CHUNK frames at a time."""

    def __init__(self, count: int) -> None:
        self._chunks: list[list[np.ndarray]] = [[] for _ in range(count)]

    def put(self, rows: np.ndarray, steps: np.ndarray, frames: np.ndarray) -> None:
        """Store ``frames`` (n, 64, 64, 3): one for each of ``rows`` (n,), after its ``steps`` (n,) frames so far."""
        for row, step, frame in zip(rows.tolist(), steps.tolist(), frames, strict=True):
            chunks = self._chunks[row]
            if step == FRAME_CHUNK * len(chunks):
                chunks.append(np.empty((FRAME_CHUNK, 64, 64, 3), np.uint8))
            chunks[-1][step % FRAME_CHUNK] = frame

    def at(self, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The frames (n, 64, 64, 3) at ``steps`` (n,) of ``rows`` (n,)."""
        places = zip(rows.tolist(), steps.tolist(), strict=True)
        return np.stack([self._chunks[row][step // FRAME_CHUNK][step % FRAME_CHUNK] for row, step in places])

    def of(self, row: int, count: int) -> np.ndarray:
        """The first ``count`` frames of a row, (count, 64, 64, 3). The memory is shared and not held twice."""
        whole = np.concatenate(self._chunks[row])
        self._chunks[row] = list(whole.reshape(-1, FRAME_CHUNK, 64, 64, 3))
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
