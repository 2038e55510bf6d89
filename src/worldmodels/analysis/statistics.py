"""Statistics of samples that the rest of this room shares."""

import numpy as np


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r of two samples (N,); NaN where one of them does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan")


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) from 0 on; equal values share the mean of theirs."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a true case (N,) bool has a higher score (N,) than a false one; ties count half.

    NaN where all cases are true or all are false.
    """
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / 2 / len(negative))
