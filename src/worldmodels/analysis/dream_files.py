"""The tables and plots of the parts of the report on dreams, from what the report has stored of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from worldmodels.analysis.dream_plots import open_loop_plot, prediction_plot, scatter_plot
from worldmodels.analysis.fidelity import OpenLoop, Predictions, PredictionScores
from worldmodels.core.tables import finite, write_table

Result = TypeVar("Result")
Title = Callable[[str], str]
"""Returns the title of a plot, given how many episodes it shows."""


def write_prediction(part: Mapping[str, Any], directory: Path, episodes: int, title: Title) -> None:
    """Write the tables and plots of the part "prediction"; episodes: the number of real ones."""
    opened, predicted = _restored(OpenLoop, part["open_loop"]), _restored(Predictions, part["predictions"])
    columns = {
        "latent_rmse": opened.latent,
        "latent_rmse_nothing_changes": opened.latent_still,
        "frame_rmse": opened.frame,
        "frame_rmse_nothing_changes": opened.frame_still,
    }
    rows = [
        {"steps_ahead": ahead} | {name: float(values[ahead - 1]) for name, values in columns.items()}
        for ahead in range(1, len(opened.latent) + 1)
    ]
    write_table(directory / "open_loop.csv", rows)
    # Parts that earlier versions measured say nothing of hits.
    scores = {field.name: part["summary"].get(field.name) for field in dataclasses.fields(PredictionScores)}
    write_table(directory / "prediction.csv", [scores])
    real = f"{episodes:,} real episodes"
    open_loop_plot(opened, directory / "open_loop.png", title(f"{opened.starts:,} dreams from {real}"))
    prediction_plot(predicted, scores["window"], directory / "prediction.png", title(real))


def write_correlation(part: Mapping[str, Any], directory: Path, episodes: int, title: Title) -> None:
    """Write the table and the plot of the part "correlation"; episodes: the number of real ones of each controller."""
    x, y = part["dream_means"], part["real_means"]
    rows = [
        {"controller": index, "dream_mean": a, "real_mean": b} for index, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    write_table(directory / "correlation.csv", rows)
    pearson = part["summary"]["pearson"]
    text = f"{len(x)} controllers: r = {'unknown' if pearson is None else f'{pearson:.2f}'}"
    about = title(f"{episodes:,} real episodes and {4 * episodes:,} dreams each")
    scatter_plot(np.array(x), np.array(y), text, directory / "correlation.png", about)


def as_lists(result: OpenLoop | Predictions) -> dict[str, Any]:
    """The result as JSON, with None for NaN."""
    fields = dataclasses.asdict(result)
    return {
        name: [finite(number) for number in value.tolist()] if isinstance(value, np.ndarray) else finite(value)
        for name, value in fields.items()
    }


def _restored(kind: Callable[..., Result], content: Mapping[str, Any]) -> Result:
    """The result of which :func:`as_lists` returned ``content``."""
    values = {name: float("nan") if value is None else value for name, value in content.items()}
    return kind(**{name: _array(value) if isinstance(value, list) else value for name, value in values.items()})


def _array(values: Sequence[float | bool | None]) -> np.ndarray:
    """Numbers, with NaN for None, or truth values."""
    truths = bool(values) and isinstance(values[0], bool)
    return np.array(values, bool if truths else np.float64)
