"""Plots of a run's training curves and of scores, as PNG, from the CSV and JSON files that the stages write."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from worldmodels.analysis.panels import Columns, controller_panel, evaluation_panel, memory_panel, vision_panel
from worldmodels.analysis.style import BLUE, STYLE, json_or_none, new_figure, run_title, save_figure
from worldmodels.core.errors import UserError
from worldmodels.core.metrics import read_metrics
from worldmodels.evaluation import finished_text, goal_of, limit_note

_LARGEST = 1e30
"""Larger numbers are not drawn: nothing that is measured is as large, and matplotlib cannot scale axes for them."""
_ROUNDS = 20
"""Most rounds in one figure, the last ones of the run."""


def training_curves(run_dir: Path, out: Path) -> None:
    """Draw what the stages of a run have measured so far, as a PNG.

    Raises :class:`UserError` if ``run_dir`` is not the directory of a run.
    """
    save_figure(curves_figure(run_dir), out)


def curves_figure(run_dir: Path) -> Figure:
    """Four panels per round: V, M, the phases of C's evolution, and the scores; panels of missing stages say so.

    What is damaged in the files is left out. At most the last 20 rounds are drawn.
    """
    rounds = {path.name.removeprefix("round-"): path for path in Path(run_dir).glob("round-*") if path.is_dir()}
    numbers = sorted(int(number) for number in rounds if re.fullmatch("[1-9][0-9]{0,8}", number))[-_ROUNDS:]
    if not numbers:
        raise UserError(f"{run_dir} holds no rounds to draw; expected the directory of a run")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(11, 0.4 + 7.6 * len(numbers), run_title(run_dir))
        panels = figure.subplots(2 * len(numbers), 2, squeeze=False).reshape(len(numbers), 4)
        for row, number in zip(panels, numbers, strict=True):
            directory = rounds[str(number)]
            prefix = f"Round {number}: " if len(rounds) > 1 else ""
            for axes, name in zip(row, ("Vision", "Memory", "Controller", "Evaluation"), strict=True):
                axes.set_title(f"{prefix}{name}")
            vision_panel(row[0], _measured(directory / "vision" / "metrics.csv"))
            memory_panel(row[1], _measured(directory / "memory" / "metrics.csv"))
            controller_panel(row[2], phase_columns(directory / "controller"))
            evaluation_panel(row[3], _scores(directory, Path(run_dir) if number == numbers[-1] else None))
    return figure


def _measured(path: Path) -> Columns:
    """The columns of a ``metrics.csv``, with NaN for numbers too large to draw."""
    return {name: np.where(np.abs(column) < _LARGEST, column, np.nan) for name, column in read_metrics(path).items()}


def phase_columns(directory: Path) -> list[tuple[str, Columns]]:
    """Name and columns of every phase of evolution that has measured something, in the order of their numbers.

    directory: that of the controller stage, with a folder per phase ("1-real", "2-finetune"). Steps are generations,
    which are numbered across all phases; further starts of a phase ("1-real-start-2") have the numbers of the first.
    """
    folders = []
    for path in directory.glob("*/metrics.csv"):
        found = re.fullmatch(r"(\d+)-(.+?)(?:-start-(\d+))?", path.parent.name)
        if found:
            folders.append((int(found[1]), int(found[3] or 1), found[2], path))
    phases: list[tuple[str, Columns]] = []
    before = end = 0.0
    for _, start, name, path in sorted(folders):
        columns = _measured(path)
        if not len(columns.get("step", ())):
            continue
        if start == 1:
            before = end
        phases.append((name, columns | {"step": columns["step"] + before}))
        end = max(end, float(phases[-1][1]["step"][-1]))
    return phases


def bar_of_scores(rows: Sequence[tuple[str, Mapping[str, Any]]], out: Path, run_dir: Path | None = None) -> None:
    """Draw the mean return of several agents with its 95% interval, as a PNG.

    rows: names, and results of :func:`worldmodels.evaluation.report`, whose returns are drawn as dots; run_dir: the run
    whose name, task, preset and seed are the figure's caption. Raises :class:`UserError` without rows.
    """
    save_figure(scores_figure(rows, run_title(run_dir) if run_dir is not None else ""), out)


def scores_figure(rows: Sequence[tuple[str, Mapping[str, Any]]], title: str = "") -> Figure:
    """A horizontal bar per agent, the first one on top."""
    if not rows:
        raise UserError("no scores to draw; evaluate at least one agent first")
    notes = dict.fromkeys(limit_note(row) for _, row in rows)
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = new_figure(8, 1.5 + 0.62 * len(rows), "; ".join(filter(None, (title, *notes))))
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        for place, (_, row) in zip(places, rows, strict=True):
            mean = float(row["mean"])
            axes.barh(place, mean, height=0.56, color=BLUE, alpha=0.35)
            returns = np.asarray(row.get("returns", ()), dtype=float)
            if len(returns):
                # A fixed spread and not a random one, so that the same scores give the same picture.
                spread = (np.arange(len(returns)) * 0.618 % 1 - 0.5) * 0.44
                axes.scatter(returns, place + spread, s=7, color=BLUE, alpha=0.7, linewidths=0)
            if row["ci95"] is not None:
                low, high = row["ci95"]
                axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color="black", capsize=4, linewidth=1.4)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.16 * (high - low))
        for place, (_, row) in zip(places, rows, strict=True):
            half = f" ± {(row['ci95'][1] - row['ci95'][0]) / 2:,.0f}" if row["ci95"] is not None else ""
            text = f"{row['mean']:,.0f}{half}"
            axes.text(1.0, place, text, transform=axes.get_yaxis_transform(), va="center", ha="right", weight="bold")
        counts = {len(row["returns"]) for _, row in rows if "returns" in row}
        names = ["\n".join([name, *_notes(row, len(counts) > 1)]) for name, row in rows]
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color="#9aa4b2", linewidth=0.8)
        each = f", {_episodes(max(counts))} each (dots)" if len(counts) == 1 else " (dots: episodes)"
        interval = " and its 95% interval" if any(row["ci95"] is not None for _, row in rows) else ""
        axes.set_xlabel(f"return: mean{interval}{each}")
    return figure


def _notes(row: Mapping[str, Any], with_count: bool) -> list[str]:
    """What stands below the name of an agent: the number of its episodes, and how many of them reached the goal."""
    count = [_episodes(len(row["returns"]))] if with_count else []
    return count + ([f"{finished_text(row, interval=False)} {goal_of(row)}"] if goal_of(row) else [])


def _episodes(count: int) -> str:
    return "1 episode" if count == 1 else f"{count:,} episodes"


def _scores(directory: Path, run_dir: Path | None) -> Mapping[str, Any] | None:
    """The round's evaluation, or the one in the summary of the run; ``run_dir`` is given for the last round only."""
    summary = json_or_none(run_dir / "summary.json") if run_dir is not None else None
    summarised = summary.get("evaluation") if isinstance(summary, dict) else None
    for content in (json_or_none(directory / "evaluation" / "evaluation.json"), summarised):
        if isinstance(content, dict) and _are_scores(content):
            return content
    return None


def _are_scores(content: Mapping[str, Any]) -> bool:
    """Whether the content of a JSON file is that of an evaluation, with numbers that can be drawn."""
    returns, interval = content.get("returns"), content.get("ci95")
    interval = [] if "ci95" in content and interval is None else interval  # a single episode has no interval
    if not isinstance(returns, list) or not isinstance(interval, list) or len(interval) not in (0, 2):
        return False
    numbers = [content.get("mean"), content.get("median"), *interval, *returns]
    return all(isinstance(number, int | float) and -_LARGEST < number < _LARGEST for number in numbers)
