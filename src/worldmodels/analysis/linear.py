"""Linear probes: ridge regression in closed form, and measures of how well it predicts held-out targets.

Legend: n examples, m held-out examples, F features, K targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodels.analysis.statistics import area_under_curve

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


@dataclass(frozen=True)
class Split:
    """Masks (n,) bool of the examples that serve to fit maps, to choose the penalty, and to measure the result."""

    fit: np.ndarray
    choose: np.ndarray
    measure: np.ndarray


def split_by_group(groups: np.ndarray) -> Split:
    """Split examples by groups (n,), such as episodes: three fifths to fit, a fifth to choose, a fifth to measure.

    All examples of a group are in the same part.
    """
    places = np.unique(groups, return_inverse=True)[1]
    fit, choose = places.max() * 3 // 5 + 1, places.max() * 4 // 5 + 1
    return Split(places < fit, (places >= fit) & (places < choose), places >= choose)


def fitted_predictions(features: np.ndarray, targets: np.ndarray, split: Split) -> np.ndarray:
    """Predictions (m, K) for the examples that serve to measure, from features (n, F); targets: (n, K).

    Each target has the penalty that was best for it on the examples that serve to choose.
    """
    # A constant feature predicts nothing and takes as much time as any other.
    varied = features[split.fit].min(axis=0) < features[split.fit].max(axis=0)
    x = torch.from_numpy(features[:, varied].astype(np.float64))
    y = torch.from_numpy(targets.astype(np.float64))
    fit, choose, measure = (torch.from_numpy(part) for part in (split.fit, split.choose, split.measure))
    if not varied.any():
        return mean_predictions(targets, split)
    maps = ridge(x[fit], y[fit], PENALTIES)
    errors = torch.stack([(linear_map(x[choose]) - y[choose]).square().mean(dim=0) for linear_map in maps])
    best = errors.argmin(dim=0)
    predictions = torch.stack([linear_map(x[measure]) for linear_map in maps])
    return np.asarray(predictions[best, :, torch.arange(y.shape[1])].T.numpy())


def mean_predictions(targets: np.ndarray, split: Split) -> np.ndarray:
    """Predictions (m, K) without features: the mean of the targets (n, K) of the examples that serve to fit."""
    return np.tile(targets[split.fit].astype(np.float64).mean(axis=0), (int(split.measure.sum()), 1))


def r_squared(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """R2, the share of variance explained, (K,), of predictions and truths (m, K); NaN where the truth is constant."""
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    residual = ((truth - predicted) ** 2).sum(axis=0)
    return np.where(total > 0, 1 - residual / np.where(total > 0, total, 1), np.nan)


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share (K,) of truths (m, K) bool that predictions (m, K), thresholded at 0.5, get right."""
    return np.asarray(((predicted > 0.5) == truth).mean(axis=0))


def areas_under_curves(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The area under the ROC curve (K,) of each column of predictions and truths (m, K); NaN for constant truths."""
    return np.array([area_under_curve(*columns) for columns in zip(predicted.T, truth.T, strict=True)])
