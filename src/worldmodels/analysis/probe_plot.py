"""A plot of how well linear maps predict a world's state, variable by variable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from worldmodels.analysis.style import BLUE, GREEN, GREY, ORANGE, PINK, STYLE, marker, new_figure, save_figure

_COLOURS = (BLUE, ORANGE, GREEN, PINK)
_LINES: dict[str, Any] = {"latents": "-", "pixels": "--", "constant": ":"}
_PER_ROW = 2
Rows = Sequence[Mapping[str, Any]]
"""The rows of a result of :func:`worldmodels.analysis.probe.probe`."""


def probe_plot(rows: Rows, out: Path, title: str = "") -> None:
    """Draw a panel per variable and measure: bars, or lines over the components of a variable that has several.

    Each V has a colour; lines are dashed for pixels and dotted for the constant. title: small text at the top.
    """
    panels = list(dict.fromkeys((row["variable"], row["measure"]) for row in rows))
    visions = list(dict.fromkeys(row["vision"] for row in rows))
    colours = {vision: _COLOURS[index % len(_COLOURS)] for index, vision in enumerate(visions)}
    lines = -(-len(panels) // _PER_ROW)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(5.5 * _PER_ROW, 3.2 * lines + 0.8, title)
        axes = figure.subplots(lines, _PER_ROW, squeeze=False).ravel()
        for panel, (variable, measure) in zip(axes, panels, strict=False):
            chosen = [row for row in rows if (row["variable"], row["measure"]) == (variable, measure)]
            panel.set_title(f"{variable[0].upper()}{variable[1:]}")
            panel.set_ylabel({"R2": "held-out R²"}.get(measure, f"held-out {measure}"))
            parts = [row for row in chosen if row["component"] >= 0]
            _curves(panel, parts, colours) if parts else _bars(panel, chosen, colours)
            panel.set_ylim(max(panel.get_ylim()[0], -0.2), 1.05)
        for spare in axes[len(panels) :]:
            spare.set_axis_off()
        handles = [
            Line2D([], [], color=colour, linewidth=6, label=_short(vision)) for vision, colour in colours.items()
        ]
        handles += [Line2D([], [], color=GREY, linestyle=style, label=source) for source, style in _LINES.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        save_figure(figure, out)


def _curves(axes: Axes, rows: Rows, colours: Mapping[str, str]) -> None:
    for vision, colour in colours.items():
        own = [row for row in rows if row["vision"] == vision]
        for source, style in _LINES.items():
            values = np.array([np.nan if row[source] is None else row[source] for row in own])
            shade = GREY if source == "constant" else colour
            components = [row["component"] for row in own]
            axes.plot(components, values, style, marker=marker(values), markersize=3, color=shade, linewidth=1.4)
    axes.set_xlabel("component")


def _bars(axes: Axes, rows: Rows, colours: Mapping[str, str]) -> None:
    width = 0.8 / len(colours)
    for index, row in enumerate(rows):
        values = [np.nan if row[source] is None else row[source] for source in _LINES]
        places = np.arange(len(_LINES)) + (index - (len(rows) - 1) / 2) * width
        axes.bar(places, values, 0.95 * width, color=colours[row["vision"]], alpha=0.85)
    axes.set_xticks(np.arange(len(_LINES)), list(_LINES))


def _short(vision: str) -> str:
    """The name of a V, of which only the end is kept if it is long, such as a path."""
    return vision if len(vision) <= 40 else f"…{vision[-39:]}"
