"""A printed summary of the report on dreams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.analysis.fidelity import DANGEROUS
from worldmodels.core.events import say
from worldmodels.core.terminal import console
from worldmodels.evaluation import limit_note


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
    if prediction.get("hit_auc") is not None:
        say(
            f"hits: AUC {prediction['hit_auc']:.3f}, {prediction['hit_top_share']:.0%} of {prediction['hits']:,} are "
            f"among the {DANGEROUS:.0%} of steps that M takes for the most dangerous ones"
        )
    if prediction["reward_correlation"] is not None:
        say(f"rewards over {prediction['window']} steps: correlation {prediction['reward_correlation']:.3f}")
    if prediction["mask_accuracy"] is not None:
        say(f"action mask: accuracy {prediction['mask_accuracy']:.2%}")
    pearson = _text(correlation["pearson"])
    say(f"dream and real score of {correlation['controllers']} controllers: correlation {pearson}")
    if "temperatures" in report:
        table = Table(title="controllers evolved in dreams", title_justify="left")
        for column in ("temperature", "dream score", "real score", "real - dream"):
            table.add_column(column, justify="right")
        for row in report["temperatures"]:
            scores = (_score(row[f"{world}_mean"], row[f"{world}_sd"]) for world in ("dream", "real"))
            table.add_row(f"{row['temperature']:g}", *scores, f"{row['real_minus_dream']:+.0f}")
        console().print(table)
        say("mean ± sd; the closer real - dream is to 0, the better the dream tells the real score")
    if limit_note(report):
        say(limit_note(report))
    say(f"tables and pictures: {directory}")


def share_of_way(dreamt: float, real: float, random: float) -> float | None:
    """How far a C evolved in dreams alone gets from the random policy's score (0) towards the agent's (1).

    dreamt, real, random: mean real scores of that C, of the agent that also trained in the real world, and of the
    random policy. None if the agent is no better than the random policy, because there is no way to measure along.
    """
    return (dreamt - random) / (real - random) if real > random else None


def dreaming_text(dreamt: float, real: float, random: float) -> str:
    """One line that says how good a C evolved in dreams alone is, for the scores of :func:`share_of_way`."""
    share, scores = share_of_way(dreamt, real, random), f"real scores {dreamt:.1f} and {real:.1f}, random {random:.1f}"
    if share is None:
        return (
            f"evolved in dreams alone, C scores {dreamt - real:+.1f} relative to the agent ({scores}; the agent is no "
            "better than random, so there is no share to give)"
        )
    return (
        f"evolved in dreams alone, C comes {share:.0%} of the way from random (0%) to the agent (100%: dreams teach as "
        f"much as the real world; {scores})"
    )


def _score(mean: float, sd: float | None) -> str:
    return f"{mean:.0f} ± {'n/a' if sd is None else f'{sd:.0f}'}"


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
