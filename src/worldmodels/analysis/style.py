"""The common style of all plots, and how they are saved."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from worldmodels.core.errors import UserError
from worldmodels.core.files import read_json, write_bytes
from worldmodels.core.terminal import printable

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
    # Names out of files are text, even if they contain dollar signs.
    "text.parse_math": False,
}
"""Settings for ``matplotlib.rc_context``; light, because plots are shown among text."""

_DPI = 140
_PER_INCH = 14
"""Characters of a caption in an inch of a figure's width."""
_BELOW = 34
"""Points between a panel and the legend below it: room for the numbers and the label of its axis."""


def run_title(run_dir: Path) -> str:
    """Name, task, preset and seed of a run, as far as its run.json has them: "run first: car-racing, seed 1"."""
    content = json_or_none(Path(run_dir) / "run.json")
    if not isinstance(content, dict):
        return ""
    words = [str(content["task"])] if "task" in content else []
    words += [f"{name} {content[name]}" for name in ("preset", "seed") if name in content]
    return printable(f"run {Path(run_dir).resolve().name}: {', '.join(words)}")


def new_figure(width: float, height: float, caption: str) -> Figure:
    """A figure of this size in inches; caption: small text at its top, which says what the figure shows."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if caption:
        lines = textwrap.fill(caption, int(_PER_INCH * width))
        figure.suptitle(lines, x=0.01, ha="left", color=GREY, size=9)
    return figure


def legend_below(axes: Sequence[Axes], columns: int = 2) -> None:
    """Draw one legend below a panel, where it covers no data; axes: those of the panel. One entry per label."""
    handles: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    panel, figure = axes[0], axes[0].get_figure(root=True)
    assert figure is not None
    place = panel.transAxes + ScaledTranslation(0, -_BELOW / 72, figure.dpi_scale_trans)
    panel.legend(
        handles.values(), handles.keys(), ncols=columns, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=place,
        borderaxespad=0, borderpad=0,
    )  # fmt: skip


def marker(values: np.ndarray) -> str:
    """The marker of a line through values (R,): a dot if there is only one, of which no line could be drawn."""
    return "o" if np.isfinite(values).sum() == 1 else ""


def json_or_none(path: Path) -> Any:
    """The content of a JSON file, or None if it is missing or damaged: a plot shows the rest and reports no damage."""
    try:
        return read_json(path)
    except (UserError, OSError):
        return None


def save_figure(figure: Figure, out: Path) -> None:
    """Write the figure as PNG, whole or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    write_bytes(Path(out), picture.getvalue())
