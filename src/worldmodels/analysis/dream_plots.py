"""Plots of the fidelity of dreams."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from worldmodels.analysis.fidelity import OpenLoop, Predictions
from worldmodels.analysis.style import BLUE, GREY, ORANGE, STYLE, legend_below, marker, new_figure, save_figure
from worldmodels.core.intervals import half_width

_FEW = 20
"""Bins of probabilities with fewer steps are not drawn, because their share is too uncertain."""


def open_loop_plot(result: OpenLoop, out: Path, title: str = "") -> None:
    """Plot the errors of dreams, in latents and in frames, against the number of steps ahead."""
    ahead = np.arange(1, len(result.latent) + 1)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(11, 4.4, title)
        left, right = figure.subplots(1, 2)
        dot = marker(result.latent)
        left.plot(ahead, result.latent, color=BLUE, marker=dot, markersize=4, label="dream")
        left.plot(
            ahead, result.latent_still, color=ORANGE, linestyle="--", marker=dot, markersize=4, label="nothing changes"
        )
        left.axhline(result.latent_guess, color=GREY, linestyle=":", label="two random moments")
        left.set(title="Latents", xlabel="steps ahead", ylabel="root mean square error of z", ylim=(0, None))
        compared = np.isfinite(result.frame)
        right.plot(ahead[compared], result.frame[compared], "o-", color=BLUE, markersize=4, label="dream")
        right.plot(
            ahead[compared], result.frame_still[compared], "o--", color=ORANGE, markersize=4, label="nothing changes"
        )
        right.axhline(result.frame_floor, color=GREY, linestyle=":", label="V's own error")
        right.set(
            title="Decoded frames", xlabel="steps ahead", ylabel="root mean square error (grey levels)", ylim=(0, None)
        )
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            legend_below([axes], columns=3)
        save_figure(figure, out)


def prediction_plot(result: Predictions, window: int, out: Path, title: str = "") -> None:
    """Plot real against predicted rewards, and the share of ends against the predicted probability of an end."""
    drawn = [*([_rewards] if len(result.reward) else []), *([_ends] if result.end.any() else [])] or [_nothing]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.6 * len(drawn), 4.6, title)
        for axes, draw in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            draw(axes, result, window)
        save_figure(figure, out)


def _rewards(axes: Axes, result: Predictions, window: int) -> None:
    both = np.concatenate([result.reward, result.reward_real])
    axes.plot([both.min(), both.max()], [both.min(), both.max()], color=GREY, linewidth=1, linestyle=":")
    axes.scatter(result.reward, result.reward_real, s=10, color=BLUE, alpha=0.4, linewidths=0)
    axes.set(title=f"Rewards of {window} steps", xlabel="predicted one step ahead", ylabel="real")


def _ends(axes: Axes, result: Predictions, window: int) -> None:
    # Ends are rare, so the bins of probability are a factor of about three wide; those with few steps are left out.
    edges = np.concatenate([[0.0], 10.0 ** np.arange(-4, 0.1, 0.5)])
    bin_of_step = np.clip(np.searchsorted(edges, result.end_probability, side="right") - 1, 0, len(edges) - 2)
    masks = [mask for mask in (bin_of_step == index for index in range(len(edges) - 1)) if mask.sum() >= _FEW]
    predicted = [result.end_probability[mask].mean() for mask in masks]
    real = [result.end[mask].mean() for mask in masks]
    axes.plot([1e-5, 1], [1e-5, 1], color=GREY, linewidth=1, linestyle=":", label="as predicted")
    axes.plot(predicted, real, "o-", color=BLUE, markersize=4, label="real")
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.set(title="Ends", xlabel="predicted probability", ylabel="share of steps that ended", xlim=(0, 1), ylim=(0, 1))
    legend_below([axes])


def _nothing(axes: Axes, result: Predictions, window: int) -> None:
    axes.set(title="no rewards or ends to compare with predictions", xticks=[], yticks=[])


def scatter_plot(dream: np.ndarray, real: np.ndarray, text: str, out: Path, title: str = "") -> None:
    """Plot real scores (N,) against dream scores (N,) of the same controllers; text: the title of the axes."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.6, 5.2, title)
        axes = figure.subplots()
        low, high = min(dream.min(), real.min()), max(dream.max(), real.max())
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle=":", label="equal scores")
        axes.scatter(dream, real, s=22, color=BLUE, alpha=0.8, linewidths=0)
        axes.set(title=text, xlabel="mean return in dreams", ylabel="mean return in the real world")
        legend_below([axes])
        save_figure(figure, out)


def temperature_plot(rows: Sequence[Mapping[str, Any]], out: Path, title: str = "") -> None:
    """Plot the dream score and the real score of the controller that was evolved at each temperature."""
    names = [f"{row['temperature']:g}" for row in rows]
    places = np.arange(len(rows))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7, 4.4, title)
        axes = figure.subplots()
        for offset, world, color in ((-0.2, "dream", ORANGE), (0.2, "real", BLUE)):
            means = np.array([row[f"{world}_mean"] for row in rows])
            halves = [half_width(row[f"{world}_sd"], row[f"{world}_episodes"]) for row in rows]
            known = [half for half in halves if half is not None]
            name = f"{world} score, 95% interval" if known else f"{world} score"
            axes.bar(places + offset, means, 0.38, color=color, alpha=0.8, label=name)
            if len(known) == len(halves):
                axes.errorbar(places + offset, means, known, fmt="none", ecolor="black", capsize=3, linewidth=1.2)
        axes.axhline(0, color="#9aa4b2", linewidth=0.8)
        axes.set_xticks(places, names)
        axes.set(xlabel="temperature of the dream in which C was evolved", ylabel="mean return")
        legend_below([axes])
        save_figure(figure, out)
