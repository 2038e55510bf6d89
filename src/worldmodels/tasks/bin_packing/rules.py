"""What needs no learning in bin packing: rules that choose a level from the state, and a bound on any rule.

Every rule takes states (N, B+1), as :meth:`BinPackingVectorEnv.state` gives them, and returns levels (N,) int64.
"""

from collections.abc import Callable

import numpy as np

Rule = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _fitting(states: np.ndarray) -> np.ndarray:
    """Open levels (N, B) bool that the item fits into; a new bin is not among them."""
    capacity = states.shape[1] - 1
    levels = np.arange(capacity)
    fits: np.ndarray = (states[:, :-1] > 0) & (levels + states[:, -1:] <= capacity)
    fits[:, 0] = False
    return fits


def best_fit(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The fullest bin that holds the item, else a new one."""
    fits = _fitting(states)
    fullest = fits.shape[1] - 1 - fits[:, ::-1].argmax(axis=1)
    return np.where(fits.any(axis=1), fullest, 0)


def sum_of_squares(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As in AWS Labs' code: a new bin only where no open one fits.

    Levels are looked at in ascending order; one that becomes full is taken at once if its score -n is below the best so
    far, others score n[a + s] - n[a] and must be better than the best so far, which begins at B.
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


def sum_of_squares_textbook(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Csirik et al. (2006): the placement, a new bin among them, after which the sum of n[h]^2 is least.

    Of equals, an open bin rather than a new one, and the fullest.
    """
    capacity = states.shape[1] - 1
    counts, items = states[:, :-1].astype(np.int64), states[:, -1]
    levels = np.arange(capacity)
    after = levels + items[:, None]
    there = np.take_along_axis(counts, np.minimum(after, capacity - 1), axis=1)
    # n[a] -> n[a] - 1 and n[a + s] -> n[a + s] + 1 change the sum by 2 (n[a + s] - n[a] + 1).
    gained = np.where(after == capacity, 0, 2 * there + 1)
    change = gained - np.where(levels == 0, 0, 2 * counts - 1)
    allowed = _fitting(states)
    allowed[:, 0] = True
    change = np.where(allowed, change, np.iinfo(np.int64).max)
    return np.asarray(capacity - 1 - change[:, ::-1].argmin(axis=1))


def uniform_valid(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any level that is allowed, a new bin among them, with the same chance."""
    allowed = _fitting(states)
    allowed[:, 0] = True
    return np.asarray((rng.random(allowed.shape) * allowed).argmax(axis=1))


def uniform_existing(states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any open level that fits with the same chance, a new bin only if none does: what needs no eyes."""
    fits = _fitting(states)
    return np.where(fits.any(axis=1), (rng.random(fits.shape) * fits).argmax(axis=1), 0)


RULES: dict[str, Rule] = {
    "best-fit": best_fit,
    "sum-of-squares": sum_of_squares,
    "sum-of-squares-textbook": sum_of_squares_textbook,
    "uniform-valid": uniform_valid,
    "uniform-existing": uniform_existing,
}
"""By name."""


def best_possible(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """No rule, even one that knows the items (N, T), returns more than this, (N,).

    All items need at least ceil(sum / B) bins, and what these hold beyond the items is free.
    """
    return -np.asarray((-sizes.sum(axis=1)) % capacity, dtype=np.float64)
