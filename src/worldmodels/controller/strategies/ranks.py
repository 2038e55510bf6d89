"""Ranks instead of fitness: a strategy that sees only them does not depend on the scale of rewards."""

import numpy as np


def centred_ranks(fitness: np.ndarray) -> np.ndarray:
    """Ranks (N,) scaled to -0.5 for the worst and 0.5 for the best fitness; NaN and infinity are the worst.

    Equal values share the mean of their ranks, so that their order has no effect. N must be at least 2.
    """
    values = finite_or_worst(fitness)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts + 1) / 2
    return np.asarray(ranks[place] / (len(values) - 1) - 0.5)


def finite_or_worst(fitness: np.ndarray) -> np.ndarray:
    """The fitness (N,) with minus infinity in place of NaN and infinity."""
    return np.where(np.isfinite(fitness), fitness, -np.inf)
