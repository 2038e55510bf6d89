"""Numbers as people read them."""


def score_text(score: float, beside: float | None = None) -> str:
    """A score with one decimal, and below 10 with two, because the rewards of some worlds are small.

    beside: the score that it belongs to, such as the mean of a standard deviation, whose decimals it gets.
    """
    return f"{score:.1f}" if abs(score if beside is None else beside) >= 10 else f"{score:.2f}"
