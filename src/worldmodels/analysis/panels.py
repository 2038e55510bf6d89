"""The panels of a run's training curves, each drawn from the columns of a stage's ``metrics.csv``."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from worldmodels.analysis.style import BLUE, GREEN, GREY, ORANGE, PINK, legend_below, marker
from worldmodels.evaluation import finished_text, goal_of, limit_note

Columns = dict[str, np.ndarray]
"""Numbers (R,) by column name, NaN where a cell is empty."""

_NOT_LOSSES = ("step", "loss", "lr")
_HELD_OUT = "held_out_"
_LOSSES = {
    "reconstruction": "reconstruction (squared error)",
    "kl": "KL (nats)",
    "feature": "discriminator's features (share of squares)",
    "generator": "generator (nats)",
    "discriminator_real": "discriminator, frames (nats)",
    "discriminator_reconstructed": "discriminator, reconstructions (nats)",
    "discriminator_prior": "discriminator, pictures of the prior (nats)",
    "discriminator_accuracy": "discriminator, share judged rightly",
    "nll": "next z (nats per dimension)",
    "reward": "reward (squared error)",
    "end": "end (cross-entropy)",
    "hit": "hit (cross-entropy)",
    "mask": "action mask (cross-entropy)",
}
_COLOURS = (BLUE, ORANGE, GREEN, PINK, GREY)
_MANY = 40
"""From this many points on, a line is drawn faintly, with its running median on top."""


def vision_panel(axes: Axes, data: Columns) -> None:
    """Draw the parts of V's loss by training step."""
    losses = _losses(data)
    if not losses:
        _missing(axes)
        return
    for index, name in enumerate(losses):
        colour, again = _COLOURS[index % len(_COLOURS)], index >= len(_COLOURS)
        _line(axes, data, name, _label(name), colour, style="--" if again else "-")
        _held_out(axes, data, name, colour)
    if min(np.nanmin(data[name]) for name in losses) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else ""))
    axes.set(xlabel="training step", ylabel="loss per frame")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # The names of a discriminator's losses are long: side by side, they would be wider than the panel.
    legend_below([axes], columns=1 if len(losses) > len(_COLOURS) else 2)


def memory_panel(axes: Axes, data: Columns) -> None:
    """Draw the parts of M's loss by training step: of the next z on the left axis, of other heads on the right one."""
    losses = _losses(data)
    if "nll" not in losses:
        _missing(axes)
        return
    _line(axes, data, "nll", _label("nll"), BLUE)
    _held_out(axes, data, "nll", BLUE)
    axes.set(xlabel="training step", ylabel="negative log-likelihood")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _focus(axes, data["nll"])
    twins, other_losses = [axes], [name for name in losses if name != "nll"]
    if other_losses:
        twins.append(_twin(axes, "loss of the other heads (dashed)"))
        for name, colour in zip(other_losses, cycle(_COLOURS[1:])):
            _line(twins[1], data, name, _label(name), colour, style="--")
            _held_out(twins[1], data, name, colour)
        _focus(twins[1], np.concatenate([data[name] for name in other_losses]), zero=True)
    legend_below(twins, columns=1)  # the panel is the last of its row, and long entries side by side would leave it


def controller_panel(axes: Axes, phases: Sequence[tuple[str, Columns]]) -> None:
    """Draw returns by generation: the phases of the evolution one after the other, with their names.

    Several starts of a phase, which have the same name, are drawn over each other.
    """
    if not phases:
        _missing(axes)
        return
    names = list(dict.fromkeys(name for name, _ in phases))
    for index, (name, data) in enumerate(phases):
        # Every phase has its own lines, because the next one may be in another world.
        _line(axes, data, "best", "best candidate", GREY, width=1.0)
        _line(axes, data, "mean", "population mean", BLUE)
        _validation(axes, data)
        if len(names) > 1 and (index == 0 or name != phases[index - 1][0]):
            place = float(data["step"][0]) - 0.5
            _phase_name(axes, name, names.index(name), place, float(phases[-1][1]["step"][-1]))
    axes.set(xlabel="generation", ylabel="return")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    twins = [axes]
    longest = np.concatenate([data.get("max_steps", np.array([np.nan])) for _, data in phases])
    if np.isfinite(longest).any() and np.nanmin(longest) < np.nanmax(longest):
        twins.append(_twin(axes, "longest episode (steps)"))
        for _, data in phases:
            _line(twins[1], data, "max_steps", "longest episode", GREEN, width=1.0, style=":")
        twins[1].set_ylim(0, 1.05 * float(np.nanmax(longest)))
    legend_below(twins)
    if len(names) > 1:
        _headroom(axes, 4 / 3)


def _phase_name(axes: Axes, name: str, index: int, start: float, last: float) -> None:
    """Write the name of the phase that begins at ``start``, with a line there; ``last``: where the evolution ends."""
    if index:
        axes.axvline(start, color=GREY, linewidth=0.8, linestyle=":")
    # Late names end at the right edge, and heights alternate, so that names neither leave the panel nor overlap.
    late, height = start > 0.85 * last, 0.93 - 0.07 * (index % 2)
    place = (last, f"{name} ", "right") if late else (start, f" {name}", "left")
    style: dict[str, Any] = {"color": GREY, "size": 9, "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
    axes.text(place[0], height, place[1], transform=axes.get_xaxis_transform(), ha=place[2], **style)


def _validation(axes: Axes, data: Columns) -> None:
    measured = np.isfinite(data.get("validation", np.array([])))
    if measured.any():
        steps, score = data["step"][measured], data["validation"][measured]
        sd = np.nan_to_num(data.get("validation_sd", np.zeros(len(measured)))[measured])
        axes.fill_between(steps, score - sd, score + sd, color=ORANGE, alpha=0.18, linewidth=0)
        axes.plot(steps, score, "o-", color=ORANGE, markersize=4, label="validation ± sd")


def evaluation_panel(axes: Axes, scores: Mapping[str, Any] | None) -> None:
    """Draw a histogram of the returns of an evaluation, with their mean, its 95% interval, and their median."""
    returns = np.asarray((scores or {}).get("returns", ()), dtype=float)
    if scores is None or not len(returns):
        _missing(axes)
        return
    bins = int(np.clip(np.sqrt(len(returns)) * 2, 5, 40))
    _, edges, _ = axes.hist(returns, bins=bins, color=BLUE, alpha=0.85)
    finished = _finished(scores, len(returns))
    if finished is not None:
        label = f"{goal_of(scores)} {finished_text(scores)}"
        axes.hist(returns[finished], bins=list(edges), color=GREEN, alpha=0.85, label=label)
    if scores["ci95"] is not None:
        low, high = scores["ci95"]
        axes.axvspan(low, high, color=ORANGE, alpha=0.25, linewidth=0, label=f"95% interval {low:,.0f} to {high:,.0f}")
    axes.axvline(scores["mean"], color=ORANGE, label=f"mean {scores['mean']:,.0f}")
    axes.axvline(scores["median"], color="black", linestyle=":", label=f"median {scores['median']:,.0f}")
    backend = f" on {scores['backend']}" if scores.get("backend") else ""
    count = "1 fresh episode" if len(returns) == 1 else f"{len(returns):,} fresh episodes"
    axes.set(xlabel=f"return of {count}{backend}", ylabel="episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if limit_note(scores):
        axes.set_title(limit_note(scores), loc="right", color=ORANGE, size=9)
    legend_below([axes])


def _finished(scores: Mapping[str, Any], count: int) -> np.ndarray | None:
    """Which of ``count`` episodes reached the goal, (count,) bool; None if that is unknown."""
    facts = scores.get("facts")
    finished = facts.get("finished") if isinstance(facts, Mapping) and goal_of(scores) else None
    return np.array(finished, bool) if isinstance(finished, list) and len(finished) == count else None


def _losses(data: Columns) -> list[str]:
    """Names of the columns that are parts of a loss and hold numbers."""
    names = [name for name in data if name not in _NOT_LOSSES and not name.endswith("_per_s")]
    names = [name for name in names if not name.startswith(_HELD_OUT)]
    return [name for name in names if np.isfinite(data[name]).any()]


def _held_out(axes: Axes, data: Columns, name: str, colour: str) -> None:
    """Draw a part of the loss on episodes that are held out, dotted, where it was measured."""
    _line(axes, data, f"{_HELD_OUT}{name}", f"{_label(name)}, held out", colour, style=":")


def _label(name: str) -> str:
    return _LOSSES.get(name, name.replace("_", " "))


def _line(axes: Axes, data: Columns, name: str, label: str, colour: str, width: float = 1.6, style: str = "-") -> None:
    """Plot a column; a long one faintly, with its running median on top; a single point as a dot."""
    measured = np.isfinite(data.get(name, np.array([])))
    if not measured.any():
        return
    steps, values = data["step"][measured], data[name][measured]
    if len(values) >= _MANY and style != ":":
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
        half = max(2, len(values) // 60)
        windows = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
        values = np.array([np.median(window) for window in windows])
    axes.plot(steps, values, style, marker=marker(values), markersize=4, color=colour, linewidth=width, label=label)


def _twin(axes: Axes, label: str) -> Axes:
    """A second axis of values, on the right."""
    right = axes.twinx()
    right.grid(visible=False)
    right.set_ylabel(label)
    return right


def _focus(axes: Axes, values: np.ndarray, zero: bool = False) -> None:
    """Limit the axis to the lower 98% of values, since the first losses are far above the others; zero: include 0."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(np.quantile(finite, 0.98))
    room = 0.08 * (high - low) or 0.1
    axes.set_ylim(min(0.0, low) if zero else low - room, high + room)


def _headroom(axes: Axes, factor: float) -> None:
    """Extend the axes upwards by ``factor``, to make room for the names of phases."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, low + (high - low) * factor)


def _missing(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", va="center", color=GREY)
