"""Linear probes: ridge regression with the penalty chosen on other examples, and measures of its predictions.

Legend: n examples, m held-out examples, F features, K targets.
"""

from dataclasses import dataclass

import numpy as np
import torch

from worldmodels.analysis.statistics import area_under_curve
from worldmodels.core.ridge import PENALTIES, ridge


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


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share (K,) of truths (m, K) bool that predictions (m, K), thresholded at 0.5, get right."""
    return np.asarray(((predicted > 0.5) == truth).mean(axis=0))


def areas_under_curves(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The area under the ROC curve (K,) of each column of predictions and truths (m, K); NaN for constant truths."""
    return np.array([area_under_curve(*columns) for columns in zip(predicted.T, truth.T, strict=True)])
