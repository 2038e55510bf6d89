"""Intervals of means against the published quantiles of Student's t distribution, and numbers for tables and JSON."""

import math
from pathlib import Path

import pytest

from worldmodels.core.intervals import half_width, t_quantile
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


def test_what_is_no_number_is_none_in_json_and_an_empty_cell_in_a_table(tmp_path: Path) -> None:
    values = [1.5, 2, "text", None, math.nan, math.inf, -math.inf]
    assert [finite(value) for value in values] == [1.5, 2, "text", None, None, None, None]
    write_table(tmp_path / "table.csv", [{"a": 1, "b": math.nan}, {"a": 0.1, "b": None}])
    assert (tmp_path / "table.csv").read_text() == "a,b\n1,\n0.1,\n"
