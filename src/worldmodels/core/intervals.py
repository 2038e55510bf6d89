"""Confidence intervals of means, with Student's t distribution, and of shares."""

import math
from functools import cache

import numpy as np

_NORMAL = 1.959963984540054
"""The value below which the absolute value of a standard normal variable lies with a probability of 95%."""


def half_width(sd: float | None, count: int) -> float | None:
    """Half of the 95% interval of the mean of ``count`` values with standard deviation ``sd``; None for one value."""
    if sd is None or count < 2:
        return None
    return t_quantile(count - 1) * sd / math.sqrt(count)


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95% interval (low, high) of a share of which ``hits`` of ``count`` cases are known: Wilson's score interval.

    It stays within 0 and 1, and says something even where there was no hit at all. count: at least 1.
    """
    share, spread = hits / count, _NORMAL**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


@cache
def t_quantile(degrees: int, coverage: float = 0.95) -> float:
    """The t below which the absolute value of a Student t variable lies with the probability ``coverage``.

    degrees: degrees of freedom, at least 1 (values - 1); with many of them, the result is that of the normal
    distribution, 1.96 for 95%.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _coverage(middle, degrees) < coverage else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _coverage(angle: float, degrees: int) -> float:
    """The probability of an absolute t below sqrt(degrees) * tan(angle): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = degrees % 2
    # The finite series 1 + 1/2 cos^2 + (1*3)/(2*4) cos^4 + ... or, for odd degrees, cos + 2/3 cos^3 + ...
    steps = np.arange(1, (degrees - odd) // 2)
    factors = (2 * steps - 1 + odd) / (2 * steps + odd) * math.cos(angle) ** 2
    series = 1.0 + float(np.cumprod(factors).sum())
    if not odd:
        return math.sin(angle) * series
    return 2 / math.pi * (angle + (math.sin(angle) * math.cos(angle) * series if degrees > 1 else 0.0))
