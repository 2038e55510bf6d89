"""Observations of any size as frames, for recordings of other programs."""

import math
from collections.abc import Callable

import numpy as np

from worldmodels.tasks import Task
from worldmodels.tasks.resize import resized

_FRAME = (64, 64, 3)
_LARGEST_SIDE = 4096
_MOST_TOGETHER = 128
_LARGEST = 64 << 20
"""Bytes of the largest observation, and of the observations that are read at once."""


class Pictures:
    """Turns recorded observations into frames.

    shape: of one observation, (H, W, 3) or (3, H, W); fit: "auto", "stretch" or "crop", see
    :class:`~worldmodels.data.exchange.config.RecordingConfig`.
    """

    def __init__(self, task: Task, fit: str, shape: tuple[int, ...]) -> None:
        self._channels_first = shape[2] != 3
        size = (*shape[1:], shape[0]) if self._channels_first else shape
        self._frames: Callable[[np.ndarray], np.ndarray] = resized
        if fit == "auto" and size == task.observation_shape:
            self._frames = task.frames
        elif size == _FRAME:
            self._frames = np.asarray
        elif fit == "crop":
            self._frames = _square

    @staticmethod
    def together(shape: tuple[int, ...], dtype: np.dtype) -> int:
        """How many observations of this shape and dtype to read at once."""
        return max(1, min(_MOST_TOGETHER, _LARGEST // (math.prod(shape) * dtype.itemsize)))

    @staticmethod
    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        """ValueError unless observations of this shape and dtype can become frames."""
        if len(shape) != 3 or (shape[0] == 3) == (shape[2] == 3):
            raise ValueError(f"expected observations of shape (H, W, 3) or (3, H, W), got {shape}")
        if not all(1 <= side <= _LARGEST_SIDE for side in shape):
            raise ValueError(f"expected pictures of at most {_LARGEST_SIDE} pixels a side, got {shape}")
        if dtype != np.uint8 and dtype.kind != "f":
            raise ValueError(f"expected observations of uint8 or of numbers from 0 to 1, got {dtype}")
        if math.prod(shape) * dtype.itemsize > _LARGEST:
            raise ValueError(f"expected smaller pictures than {shape} {dtype}; make them smaller before the import")

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Frames (n, 64, 64, 3) uint8 of observations (n, ...), uint8 or from 0 to 1; ValueError for other numbers."""
        if observations.dtype != np.uint8:
            # NaN compares as false, so that it is refused, too.
            if not bool(((observations >= 0) & (observations <= 1)).all()):
                raise ValueError("observations that are no uint8 must be numbers from 0 to 1, and some are not")
            observations = np.rint(observations * np.float32(255)).astype(np.uint8)
        if self._channels_first:
            observations = np.moveaxis(observations, 1, 3)
        return self._frames(np.ascontiguousarray(observations))


def _square(pictures: np.ndarray) -> np.ndarray:
    """The square in the middle of pictures (n, H, W, 3), as frames."""
    height, width = pictures.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resized(np.ascontiguousarray(pictures[:, top : top + side, left : left + side]))
