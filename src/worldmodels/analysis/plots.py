"""Curves of a run and bars of scores as PNG, from the CSV and JSON files that the stages leave."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from worldmodels.core.errors import UserError
from worldmodels.core.files import write_bytes

BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b7280"
"""Okabe and Ito's colours, which colour-blind people can tell apart."""

STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa4b2",
    "axes.labelcolor": "#374151",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}

_DPI = 140

Columns = dict[str, np.ndarray]
"""Numbers (R,) by column name, NaN where a cell is empty."""


def read_metrics(path: Path) -> Columns:
    """The columns of a ``metrics.csv``; an absent or empty file gives none, an unfinished last line is left out."""
    if not path.is_file():
        return {}
    with open(path, newline="", errors="replace") as file:
        reader = csv.reader(file)
        names = next(reader, [])
        rows = [[_number(cell) for cell in row] for row in reader if len(row) == len(names)]
    rows = [row for row in rows if row and not math.isnan(row[0])]
    return dict(zip(names, np.array(rows).T, strict=True)) if rows else {}


def training_curves(run_dir: Path, out: Path) -> None:
    """Draw what the stages of a run have measured so far; four panels per round, absent stages stay empty.

    Raises :class:`UserError` when ``run_dir`` is no run.
    """
    rounds = sorted(path for path in Path(run_dir).glob("round-*") if path.is_dir())
    if not rounds:
        raise UserError(f"{run_dir} holds no rounds to draw; expected the directory of a run")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 6.8 * len(rounds)), layout="constrained")
        panels = figure.subplots(2 * len(rounds), 2).reshape(len(rounds), 4)
        for row, directory in zip(panels, rounds, strict=True):
            prefix = f"Round {directory.name.removeprefix('round-')}: " if len(rounds) > 1 else ""
            _vision(row[0], read_metrics(directory / "vision" / "metrics.csv"), prefix)
            _memory(row[1], read_metrics(directory / "memory" / "metrics.csv"), prefix)
            _controller(row[2], *_evolution(directory / "controller"), prefix)
            last = Path(run_dir) if directory == rounds[-1] else None
            _evaluation(row[3], _scores(directory, last), prefix)
        save_figure(figure, out)


def bar_of_scores(rows: Sequence[tuple[str, Mapping[str, Any]]], out: Path) -> None:
    """Draw the mean return of several agents with its 95% interval.

    rows: names and results with keys mean, ci95 (low, high) and, if there, returns (each episode becomes a dot).
    """
    if not rows:
        raise UserError("no scores to draw; evaluate at least one agent first")
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x"}):
        figure = Figure(figsize=(8, 1.1 + 0.62 * len(rows)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        for place, (_, row) in zip(places, rows, strict=True):
            mean, (low, high) = float(row["mean"]), row["ci95"]
            axes.barh(place, mean, height=0.56, color=BLUE, alpha=0.35)
            returns = np.asarray(row.get("returns", ()), dtype=float)
            if len(returns):
                # A fixed spread instead of noise: the same scores give the same picture.
                spread = (np.arange(len(returns)) * 0.618 % 1 - 0.5) * 0.44
                axes.scatter(returns, place + spread, s=7, color=BLUE, alpha=0.7, linewidths=0)
            axes.errorbar(mean, place, xerr=[[mean - low], [high - mean]], color="black", capsize=4, linewidth=1.4)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high + 0.16 * (high - low))
        for place, (_, row) in zip(places, rows, strict=True):
            text = f"{row['mean']:,.0f} ± {(row['ci95'][1] - row['ci95'][0]) / 2:,.0f}"
            axes.text(1.0, place, text, transform=axes.get_yaxis_transform(), va="center", ha="right", weight="bold")
        axes.set_yticks(places, [name for name, _ in rows])
        axes.tick_params(axis="y", length=0)
        axes.axvline(0, color="#9aa4b2", linewidth=0.8)
        counts = {len(row["returns"]) for _, row in rows if "returns" in row}
        episodes = f", {counts.pop():,} episodes each" if len(counts) == 1 else ""
        axes.set_xlabel(f"return: mean and its 95% interval{episodes}" + (" (dots)" if episodes else ""))
        save_figure(figure, out)


def _vision(axes: Axes, data: Columns, prefix: str) -> None:
    axes.set_title(f"{prefix}Vision")
    if not _has(axes, data, "reconstruction"):
        return
    _line(axes, data, "reconstruction", "reconstruction (squared error)", BLUE)
    _line(axes, data, "kl", "KL (nats)", ORANGE)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.set(xlabel="training step", ylabel="loss per frame")
    axes.legend()


def _memory(axes: Axes, data: Columns, prefix: str) -> None:
    axes.set_title(f"{prefix}Memory")
    if not _has(axes, data, "nll"):
        return
    _line(axes, data, "nll", "next z (nats per dimension)", BLUE)
    axes.set(xlabel="training step", ylabel="negative log-likelihood")
    _focus(axes, data["nll"])
    handles, labels = axes.get_legend_handles_labels()
    twins = [axes]
    texts = {
        "reward": ("reward (squared error)", ORANGE),
        "end": ("end (cross-entropy)", GREEN),
        "allowed": ("what is allowed (cross-entropy)", PINK),
    }
    others = [name for name in texts if name in data and np.isfinite(data[name]).any()]
    if others:
        right = axes.twinx()
        twins.append(right)
        right.grid(visible=False)
        for name in others:
            _line(right, data, name, *texts[name], style="--")
        right.set_ylabel("loss of the other heads (dashed)")
        _focus(right, np.concatenate([data[name] for name in others]), zero=True)
        more, names = right.get_legend_handles_labels()
        handles, labels = handles + more, labels + names
    axes.legend(handles, labels, loc="upper right")
    _headroom(*twins)


def _evolution(directory: Path) -> tuple[Columns, int]:
    """What was measured in every generation, those of polishing last, and how many came before them (0: all)."""
    data = read_metrics(directory / "metrics.csv")
    steps = data.get("step", np.array([]))
    # A run that was told to go on has polished more than once; the last time counts.
    polished = read_metrics(directory / f"polish-after-{int(steps[-1])}" / "metrics.csv") if len(steps) else {}
    if not len(polished.get("step", ())):
        return data, 0
    polished = polished | {"step": polished["step"] + steps[-1]}
    return {name: np.concatenate([data[name], polished[name]]) for name in data if name in polished}, int(steps[-1])


def _controller(axes: Axes, data: Columns, main: int, prefix: str) -> None:
    axes.set_title(f"{prefix}Controller")
    if not _has(axes, data, "mean"):
        return
    if main:
        axes.axvspan(main, data["step"][-1], color=GREY, alpha=0.1, linewidth=0, label="polishing")
    _line(axes, data, "best", "best candidate", GREY, width=1.0)
    _line(axes, data, "mean", "population mean", BLUE)
    validation = data.get("validation", np.array([]))
    known = np.isfinite(validation)
    if known.any():
        steps, score = data["step"][known], validation[known]
        sd = np.nan_to_num(data.get("validation_sd", np.zeros(len(known)))[known])
        axes.fill_between(steps, score - sd, score + sd, color=ORANGE, alpha=0.18, linewidth=0)
        axes.plot(steps, score, "o-", color=ORANGE, markersize=4, label="validation ± sd")
    axes.set(xlabel="generation", ylabel="return")
    handles, labels = axes.get_legend_handles_labels()
    twins = [axes]
    horizon = data.get("horizon", np.array([np.nan]))
    if np.isfinite(horizon).any() and np.nanmin(horizon) < np.nanmax(horizon):
        right = axes.twinx()
        twins.append(right)
        right.grid(visible=False)
        _line(right, data, "horizon", "horizon", GREEN, width=1.0, style=":")
        right.set(ylabel="longest episode (steps)", ylim=(0, 1.05 * float(np.nanmax(horizon))))
        more, names = right.get_legend_handles_labels()
        handles, labels = handles + more, labels + names
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(handles, labels, loc="upper left", ncols=2)
    _headroom(*twins)


def _evaluation(axes: Axes, scores: Mapping[str, Any] | None, prefix: str) -> None:
    axes.set_title(f"{prefix}Evaluation")
    returns = np.asarray((scores or {}).get("returns", ()), dtype=float)
    if scores is None or not len(returns):
        _missing(axes)
        return
    bins = int(np.clip(np.sqrt(len(returns)) * 2, 5, 40))
    axes.hist(returns, bins=bins, color=BLUE, alpha=0.85)
    low, high = scores["ci95"]
    axes.axvspan(low, high, color=ORANGE, alpha=0.25, linewidth=0, label=f"95% interval {low:,.0f} to {high:,.0f}")
    axes.axvline(scores["mean"], color=ORANGE, label=f"mean {scores['mean']:,.0f}")
    axes.axvline(scores["median"], color="black", linestyle=":", label=f"median {scores['median']:,.0f}")
    where = f" on {scores['backend']}" if scores.get("backend") else ""
    axes.set(xlabel=f"return of {len(returns):,} fresh episodes{where}", ylabel="episodes")
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left")


def _scores(directory: Path, run_dir: Path | None) -> Mapping[str, Any] | None:
    """The round's evaluation, or for the last round the one in the run's summary."""
    for path, key in (
        (directory / "evaluation" / "evaluation.json", ""),
        (directory / "evaluate" / "evaluation.json", ""),
    ):
        if (found := _read_json(path, key)) is not None:
            return found
    return _read_json(run_dir / "summary.json", "evaluation") if run_dir is not None else None


def _read_json(path: Path, key: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
        content = content[key] if key else content
        return content if {"returns", "mean", "median", "ci95"} <= set(content) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a picture shows what there is; damaged files are reported by those who need them


def _line(axes: Axes, data: Columns, name: str, label: str, colour: str, width: float = 1.6, style: str = "-") -> None:
    """Plot a column; long noisy ones faintly, with their running median on top."""
    if name not in data or not np.isfinite(data[name]).any():
        return
    known = np.isfinite(data[name])
    steps, values = data["step"][known], data[name][known]
    if len(values) >= 40 and style != ":":
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
        half = max(2, len(values) // 60)
        windows = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
        values = np.array([np.median(window) for window in windows])
    axes.plot(steps, values, style, color=colour, linewidth=width, label=label)


def _focus(axes: Axes, values: np.ndarray, zero: bool = False) -> None:
    """Limit the axis to what matters: the first losses are many times the later ones."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(np.quantile(finite, 0.98))
    room = 0.08 * (high - low) or 0.1
    axes.set_ylim(min(0.0, low) if zero else low - room, high + room)


def _headroom(*axes: Axes) -> None:
    """Leave the upper quarter to the legend."""
    for one in axes:
        low, high = one.get_ylim()
        one.set_ylim(low, low + (high - low) * 4 / 3)


def _has(axes: Axes, data: Columns, name: str) -> bool:
    if name in data and np.isfinite(data[name]).any():
        return True
    _missing(axes)
    return False


def _missing(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", va="center", color=GREY)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def save_figure(figure: Figure, out: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    write_bytes(Path(out), picture.getvalue())
