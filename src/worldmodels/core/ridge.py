"""Ridge regression in closed form, and the share of variance that predictions explain.

Legend: n examples, m held-out examples, F features, K targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-6, 4))
"""Penalties to choose from, relative to the features' mean sum of squares; the largest leaves little but the mean."""


@dataclass(frozen=True)
class LinearMap:
    """Predicts (features - centre) @ weights + level. weights: (F, K); centre: (F,); level: (K,); all float64."""

    weights: Tensor
    centre: Tensor
    level: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Predictions (n, K)."""
        return (features - self.centre) @ self.weights + self.level


def ridge(features: Tensor, targets: Tensor, penalties: Sequence[float]) -> list[LinearMap]:
    """For each penalty, the map that minimises the squared error plus the penalty times the squared weights.

    features: (n, F) and targets: (n, K), float64. The level is not penalised. The system that is solved has F or n
    equations, whichever is smaller.
    """
    centre, level = features.mean(dim=0), targets.mean(dim=0)
    x, y = features - centre, targets - level
    by_example = x.shape[1] > x.shape[0]
    gram = x @ x.T if by_example else x.T @ x
    scale = float(x.square().sum()) / x.shape[1] or 1.0
    identity = torch.eye(len(gram), dtype=gram.dtype)
    maps = []
    for penalty in penalties:
        factor = torch.linalg.cholesky(gram + penalty * scale * identity)
        weights = x.T @ torch.cholesky_solve(y, factor) if by_example else torch.cholesky_solve(x.T @ y, factor)
        maps.append(LinearMap(weights, centre, level))
    return maps


def r_squared(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """R2, the share of variance explained, (K,), of predictions and truths (m, K); NaN where the truth is constant."""
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    residual = ((truth - predicted) ** 2).sum(axis=0)
    return np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), np.nan)
