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


def share_in_top(scores: np.ndarray, truth: np.ndarray, share: float) -> float:
    """The share of the positive cases that are among the ``share`` of all cases with the highest scores.

    scores: (N,); truth: (N,) bool, the positive cases. Where equal scores are at the edge, it is the mean over the
    orders in which these could be. NaN if there is no positive case.
    """
    if not truth.any():
        return float("nan")
    taken = share * len(scores)
    edge = np.sort(scores)[::-1][min(int(taken), len(scores) - 1)]
    above, at_edge = scores > edge, scores == edge
    part = (taken - above.sum()) / at_edge.sum()
    return float((truth[above].sum() + part * truth[at_edge].sum()) / truth.sum())
