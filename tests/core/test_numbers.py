"""Numbers as people read them."""

import pytest

from worldmodels.core.numbers import score_text


@pytest.mark.parametrize(
    ("score", "beside", "text"),
    [
        (905.04, None, "905.0"),
        (-21.94, None, "-21.9"),
        (0.886, None, "0.89"),
        (7.07, 905.0, "7.1"),
        (12.3, 0.5, "12.30"),
    ],
)
def test_a_score_below_ten_has_two_decimals_and_what_belongs_to_a_score_has_as_many(
    score: float, beside: float | None, text: str
) -> None:
    assert score_text(score, beside) == text
