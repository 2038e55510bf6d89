"""Plots of the fidelity of dreams."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from worldmodels.analysis.fidelity import OpenLoop, Predictions
from worldmodels.analysis.style import BLUE, GREY, ORANGE, STYLE, save_figure

_FEW = 20
"""Steps below which a share says nothing."""


def _figure(width: float, height: float, title: str) -> Figure:
    """title: what the figure is about, in small letters at its top; empty for none."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=GREY, size=10)
    return figure


def open_loop_plot(result: OpenLoop, out: Path, title: str = "") -> None:
    """Errors against the number of steps dreamt, in latents and in frames."""
    ahead = np.arange(1, len(result.latent) + 1)
    with matplotlib.rc_context(STYLE):
        figure = _figure(11, 4.4, title)
        left, right = figure.subplots(1, 2)
        left.plot(ahead, result.latent, color=BLUE, label="dream")
        left.plot(ahead, result.latent_still, color=ORANGE, linestyle="--", label="nothing changes")
        left.axhline(result.latent_guess, color=GREY, linestyle=":", label="two random moments")
        left.set(title="Latents", xlabel="steps ahead", ylabel="root mean square error of z", ylim=(0, None))
        known = np.isfinite(result.frame)
        right.plot(ahead[known], result.frame[known], "o-", color=BLUE, markersize=4, label="dream")
        right.plot(ahead[known], result.frame_still[known], "o--", color=ORANGE, markersize=4, label="nothing changes")
        right.axhline(result.frame_floor, color=GREY, linestyle=":", label="V's own error")
        right.set(
            title="Decoded frames", xlabel="steps ahead", ylabel="root mean square error (grey levels)", ylim=(0, None)
        )
        for axes in (left, right):
            axes.legend()
        save_figure(figure, out)


def prediction_plot(found: Predictions, window: int, out: Path, title: str = "") -> None:
    """Predicted rewards against real ones, and how often ends came where M gave them some probability."""
    drawn = [*([_rewards] if len(found.reward) else []), *([_ends] if found.end.any() else [])] or [_nothing]
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.6 * len(drawn), 4.6, title)
        for axes, draw in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            draw(axes, found, window)
        save_figure(figure, out)


def _rewards(axes: Axes, found: Predictions, window: int) -> None:
    both = np.concatenate([found.reward, found.reward_real])
    axes.plot([both.min(), both.max()], [both.min(), both.max()], color=GREY, linewidth=1, linestyle=":")
    axes.scatter(found.reward, found.reward_real, s=10, color=BLUE, alpha=0.4, linewidths=0)
    axes.set(title=f"Rewards of {window} steps", xlabel="predicted one step ahead", ylabel="real")


def _ends(axes: Axes, found: Predictions, window: int) -> None:
    # Ends are rare: classes of probability a factor of about three apart, those with few steps left out.
    edges = np.concatenate([[0.0], 10.0 ** np.arange(-4, 0.1, 0.5)])
    where = np.clip(np.searchsorted(edges, found.end_probability, side="right") - 1, 0, len(edges) - 2)
    classes = [one for one in range(len(edges) - 1) if (where == one).sum() >= _FEW]
    told = [found.end_probability[where == one].mean() for one in classes]
    came = [found.end[where == one].mean() for one in classes]
    axes.plot([1e-5, 1], [1e-5, 1], color=GREY, linewidth=1, linestyle=":", label="as predicted")
    axes.plot(told, came, "o-", color=BLUE, markersize=4, label="came to an end")
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set(title="Ends", xlabel="predicted probability", ylabel="share of steps that ended", xlim=(0, 1), ylim=(0, 1))
    axes.legend()


def _nothing(axes: Axes, found: Predictions, window: int) -> None:
    axes.set(title="M predicts neither rewards nor ends, or none came", xticks=[], yticks=[])


def scatter_plot(dream: np.ndarray, real: np.ndarray, text: str, out: Path, title: str = "") -> None:
    """Real scores (N,) against dream scores (N,) of the same controllers."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.6, 5.2, title)
        axes = figure.subplots()
        low, high = min(dream.min(), real.min()), max(dream.max(), real.max())
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":", label="as dreamt")
        axes.scatter(dream, real, s=22, color=BLUE, alpha=0.8, linewidths=0)
        axes.set(title=text, xlabel="mean return in dreams", ylabel="mean return in the real world")
        axes.legend()
        save_figure(figure, out)


def temperature_plot(rows: Sequence[Mapping[str, Any]], out: Path, title: str = "") -> None:
    """Dream and real score of controllers evolved at each temperature."""
    names = [f"{row['temperature']:g}" for row in rows]
    places = np.arange(len(rows))
    with matplotlib.rc_context(STYLE):
        figure = _figure(7, 4.4, title)
        axes = figure.subplots()
        for offset, world, color in ((-0.2, "dream", ORANGE), (0.2, "real", BLUE)):
            means = np.array([row[f"{world}_mean"] for row in rows])
            halves = np.array([1.96 * row[f"{world}_sd"] / np.sqrt(row[f"{world}_episodes"]) for row in rows])
            axes.bar(places + offset, means, 0.38, color=color, alpha=0.8, label=f"{world} score, 95% interval")
            axes.errorbar(places + offset, means, halves, fmt="none", ecolor="black", capsize=3, linewidth=1.2)
        axes.set_xticks(places, names)
        axes.set(xlabel="temperature of the dream in which C was evolved", ylabel="mean return")
        axes.legend()
        save_figure(figure, out)
