"""A printed summary of the report on dreams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.core.events import say
from worldmodels.core.terminal import console


def print_report(report: Mapping[str, Any], directory: Path) -> None:
    """Print the main figures of a report, and the folder with all tables and plots."""
    from rich.table import Table

    prediction, correlation = report["prediction"], report["correlation"]
    steps = prediction["closer_than_a_still_picture_until"]
    starts = prediction["starts"]
    say(f"a dreamt frame is closer to the real one than a still picture until step {steps}, from {starts} starts")
    if prediction["end_auc"] is not None:
        recall, precision = (prediction[name] for name in ("end_recall", "end_precision"))
        say(
            f"ends: AUC {prediction['end_auc']:.3f}, recall {_text(recall)}, precision {_text(precision)} "
            "where the weighted end head exceeds 0.5"
        )
    if prediction["reward_correlation"] is not None:
        say(f"rewards over {prediction['window']} steps: correlation {prediction['reward_correlation']:.3f}")
    if prediction["mask_accuracy"] is not None:
        say(f"action mask: accuracy {prediction['mask_accuracy']:.2%}")
    pearson = _text(correlation["pearson"])
    say(f"dream and real score of {correlation['controllers']} controllers: correlation {pearson}")
    if "temperatures" in report:
        table = Table(title="controllers evolved in dreams", title_justify="left")
        for column in ("temperature", "dream score", "real score"):
            table.add_column(column, justify="right")
        for row in report["temperatures"]:
            scores = (f"{row[f'{world}_mean']:.0f} ± {row[f'{world}_sd']:.0f}" for world in ("dream", "real"))
            table.add_row(f"{row['temperature']:g}", *scores)
        console().print(table)
    say(f"tables and pictures: {directory}")


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
