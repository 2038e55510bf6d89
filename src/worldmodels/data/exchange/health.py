"""The health at every frame, in the files of other programs."""

import numpy as np

from worldmodels.data.episodes import Episode


def known_health(episode: Episode) -> np.ndarray | None:
    """The health (T+1,) float32 at every frame, NaN where it is not known; None if it is known nowhere."""
    if episode.health is None or np.isnan(episode.health).all():
        return None
    return np.asarray(episode.health, np.float32)


def checked_health(values: np.ndarray, frames: int) -> np.ndarray:
    """A health that was read from a file, (frames,) float32; ValueError for anything else.

    NaN stands for a health that is not known.
    """
    if values.shape != (frames,) or values.dtype.kind not in "buif":
        raise ValueError(f"expected as many numbers as frames as health, {frames}, got {values.shape} {values.dtype}")
    with np.errstate(over="ignore"):  # it is infinity then
        health = values.astype(np.float32)
    if np.isinf(health).any():
        raise ValueError("health holds infinity or numbers that are too large")
    return health
