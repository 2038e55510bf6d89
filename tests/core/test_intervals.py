"""Intervals of means and shares against published numbers, and numbers for tables and JSON."""

import math
from pathlib import Path

import pytest

from worldmodels.core.intervals import half_width, share_interval, t_quantile
from worldmodels.core.tables import finite, write_table

PUBLISHED = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 60: 2.000, 120: 1.980}
"""Two-sided 95% quantiles by degrees of freedom, from the usual printed tables."""


def test_quantiles_are_those_of_the_printed_tables() -> None:
    for degrees, wanted in PUBLISHED.items():
        assert t_quantile(degrees) == pytest.approx(wanted, abs=6e-4)
    assert t_quantile(4, 0.99) == pytest.approx(4.604, abs=6e-4)
    assert t_quantile(1_000_000) == pytest.approx(1.959964, abs=1e-5), "the normal distribution is the limit"


def test_an_interval_needs_two_values() -> None:
    assert half_width(None, 1) is None and half_width(2.0, 1) is None
    assert half_width(3.0, 2) == pytest.approx(12.7062 * 3 / math.sqrt(2), rel=1e-4)
    assert half_width(0.0, 5) == 0.0


WILSON = {(0, 10): (0.0, 0.2775), (10, 10): (0.7225, 1.0), (58, 100): (0.4821, 0.6720), (1, 1): (0.2065, 1.0)}
"""Wilson's 95% intervals, worked out by hand from his formula."""


def test_intervals_of_shares_are_wilsons() -> None:
    for (hits, count), wanted in WILSON.items():
        assert share_interval(hits, count) == pytest.approx(wanted, abs=6e-5)


def test_the_interval_of_a_share_holds_it_in_about_95_of_100_cases() -> None:
    """Exactly, by the binomial distribution; the coverage of such intervals varies with the share."""
    count, coverage = 60, []
    for share in (0.03, 0.2, 0.5, 0.77, 0.96):
        inside = [low <= share <= high for low, high in (share_interval(hits, count) for hits in range(count + 1))]
        chances = [math.comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(count + 1)]
        coverage.append(sum(chance for chance, held in zip(chances, inside, strict=True) if held))
    assert min(coverage) > 0.92 and 0.94 < sum(coverage) / len(coverage) < 0.97


def test_what_is_no_number_is_none_in_json_and_an_empty_cell_in_a_table(tmp_path: Path) -> None:
    values = [1.5, 2, "text", None, math.nan, math.inf, -math.inf]
    assert [finite(value) for value in values] == [1.5, 2, "text", None, None, None, None]
    write_table(tmp_path / "table.csv", [{"a": 1, "b": math.nan}, {"a": 0.1, "b": None}])
    assert (tmp_path / "table.csv").read_text() == "a,b\n1,\n0.1,\n"
