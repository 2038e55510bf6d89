"""Hand-written rules for bin packing, which serve as baselines.

Rules take states (N, B+1) of :meth:`BinPackingVectorEnv.state` and random numbers, and return levels (N,) int64.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np


class Random(Protocol):
    """Random numbers for the rows of the states, for example those of a ``numpy.random.Generator``."""

    def random(self, size: tuple[int, int]) -> np.ndarray:
        """Uniform numbers in [0, 1), as many rows as the states have."""
        ...


Rule = Callable[[np.ndarray, Random], np.ndarray]


def _fitting(states: np.ndarray) -> np.ndarray:
    """Open levels (N, B) bool that have room for the item; level 0, a new bin, is not among them."""
    capacity = states.shape[1] - 1
    levels = np.arange(capacity)
    fits: np.ndarray = (states[:, :-1] > 0) & (levels + states[:, -1:] <= capacity)
    fits[:, 0] = False
    return fits


def best_fit(states: np.ndarray, rng: Random) -> np.ndarray:
    """The fullest open bin that has room for the item; a new bin if there is none."""
    fits = _fitting(states)
    fullest = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)
    return np.where(fits.any(axis=1), fullest, 0)


def sum_of_squares(states: np.ndarray, rng: Random) -> np.ndarray:
    """Sum of squares as in AWS Labs' code, which opens a new bin only if no open bin has room for the item.

    With s the item's size and n[a] the open bins of level a, levels are visited in ascending order. Level a scores
    n[a + s] - n[a], or -n[a] if the item fills the bin. A level is chosen if its score is below the best one so far,
    which starts at B; the first one chosen that fills the bin is final.
    """
    capacity = states.shape[1] - 1
    fits, counts, items = _fitting(states), states[:, :-1], states[:, -1]
    best, chosen = np.full(len(states), capacity, np.int64), np.zeros(len(states), np.int64)
    settled = np.zeros(len(states), bool)
    rows = np.arange(len(states))
    for level in range(1, capacity):
        after = level + items
        full = after == capacity
        score = np.where(full, 0, counts[rows, np.minimum(after, capacity - 1)]) - counts[:, level]
        better = fits[:, level] & ~settled & (score < best)
        best, chosen = np.where(better, score, best), np.where(better, level, chosen)
        settled |= better & full
    return chosen


def sum_of_squares_textbook(states: np.ndarray, rng: Random) -> np.ndarray:
    """Sum of squares as in Csirik et al. (2006): the placement after which the sum of n[h]^2 over levels h is lowest.

    A new bin is one of the placements. Ties go to the fullest bin, so that a new bin loses every tie.
    """
    capacity = states.shape[1] - 1
    counts, items = states[:, :-1].astype(np.int64), states[:, -1]
    levels = np.arange(capacity)
    after = levels + items[:, None]
    target = np.take_along_axis(counts, np.minimum(after, capacity - 1), axis=1)
    # n[a] -> n[a] - 1 and n[a + s] -> n[a + s] + 1 change the sum by 2 (n[a + s] - n[a] + 1).
    gained = np.where(after == capacity, 0, 2 * target + 1)
    change = gained - np.where(levels == 0, 0, 2 * counts - 1)
    allowed = _fitting(states)
    allowed[:, 0] = True
    change = np.where(allowed, change, np.iinfo(np.int64).max)
    return np.asarray(capacity - 1 - change[:, ::-1].argmin(axis=1))


def uniform_valid(states: np.ndarray, rng: Random) -> np.ndarray:
    """A uniformly random allowed level, where a new bin is always allowed."""
    allowed = _fitting(states)
    allowed[:, 0] = True
    return np.asarray((rng.random(allowed.shape) * allowed).argmax(axis=1))


def uniform_existing(states: np.ndarray, rng: Random) -> np.ndarray:
    """A uniformly random open level that has room for the item; a new bin only if there is none."""
    fits = _fitting(states)
    return np.where(fits.any(axis=1), (rng.random(fits.shape) * fits).argmax(axis=1), 0)


RULES: dict[str, Rule] = {
    "best-fit": best_fit,
    "sum-of-squares": sum_of_squares,
    "sum-of-squares-textbook": sum_of_squares_textbook,
    "uniform-valid": uniform_valid,
    "uniform-existing": uniform_existing,
}
"""Every rule by its name; the first one is the opponent of people who play."""
