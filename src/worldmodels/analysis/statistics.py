"""Statistics of samples that the modules of this package share."""

import numpy as np


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r of two samples (N,); NaN if one of them does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan")


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) of values (N,), starting at 0; equal values get the mean of their ranks."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a positive case has a higher score than a negative one.

    scores: (N,); truth: (N,) bool, the positive cases. Ties count half. NaN if all cases are positive or all negative.
    """
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / 2 / len(negative))
