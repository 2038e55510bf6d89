"""What one linear map can tell from features: ridge regression in closed form, and how well it does.

Legend: n examples, F features, K targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodels.analysis.statistics import area_under_curve

PENALTIES = tuple(10.0**power for power in range(-6, 4))
"""In units of the features' mean variance; the largest leaves little but the targets' mean."""


@dataclass(frozen=True)
class LinearMap:
    """weights: (F, K), for features (n, F) as they differ from centre (F,); level: (K,), all float64."""

    weights: Tensor
    centre: Tensor
    level: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Predictions (n, K)."""
        return (features - self.centre) @ self.weights + self.level


def ridge(features: Tensor, targets: Tensor, penalties: Sequence[float]) -> list[LinearMap]:
    """The map of least squared error plus penalty times squared weights, for each penalty, in closed form.

    features: (n, F) and targets: (n, K), float64. Means are not penalised. Solved for the features or for the examples,
    whichever are fewer.
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
    """Which examples (n,) bool serve to fit, to choose the penalty and to measure."""

    fit: np.ndarray
    choose: np.ndarray
    measure: np.ndarray


def split_by_group(groups: np.ndarray) -> Split:
    """Groups (n,), such as episodes, go whole to one part: three fifths, one fifth and one fifth of them."""
    places = np.unique(groups, return_inverse=True)[1]
    fit, choose = places.max() * 3 // 5 + 1, places.max() * 4 // 5 + 1
    return Split(places < fit, (places >= fit) & (places < choose), places >= choose)


def fitted_predictions(features: np.ndarray, targets: np.ndarray, split: Split) -> np.ndarray:
    """Predictions (m, K) of those targets (n, K) that serve to measure, from features (n, F).

    Each target has the penalty that was best for it on the examples that serve to choose.
    """
    # A feature that never changes says nothing and costs as much.
    varied = features[split.fit].min(axis=0) < features[split.fit].max(axis=0)
    x = torch.from_numpy(features[:, varied].astype(np.float64))
    y = torch.from_numpy(targets.astype(np.float64))
    fit, choose, measure = (torch.from_numpy(part) for part in (split.fit, split.choose, split.measure))
    if not varied.any():
        return mean_predictions(targets, split)
    maps = ridge(x[fit], y[fit], PENALTIES)
    errors = torch.stack([(one(x[choose]) - y[choose]).square().mean(dim=0) for one in maps])
    best = errors.argmin(dim=0)
    predictions = torch.stack([one(x[measure]) for one in maps])
    return np.asarray(predictions[best, :, torch.arange(y.shape[1])].T.numpy())


def mean_predictions(targets: np.ndarray, split: Split) -> np.ndarray:
    """Predictions (m, K) without any features: the mean of the targets (n, K) that serve to fit."""
    return np.tile(targets[split.fit].astype(np.float64).mean(axis=0), (int(split.measure.sum()), 1))


def r_squared(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the variance explained, (K,), of predictions and truths (m, K); NaN where the truth never changes."""
    total = ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    left = ((truth - predicted) ** 2).sum(axis=0)
    return np.where(total > 0, 1 - left / np.where(total > 0, total, 1), np.nan)


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the truths (m, K) bool that predictions (m, K), true above a half, get right, (K,)."""
    return np.asarray(((predicted > 0.5) == truth).mean(axis=0))


def areas_under_curves(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of each column, (K,); NaN where all truths are the same."""
    return np.array([area_under_curve(a, b) for a, b in zip(predicted.T, truth.T, strict=True)])
