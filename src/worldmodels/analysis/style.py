"""The common style of all plots, and how they are saved."""

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

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


def run_title(run_dir: Path) -> str:
    """Task, preset and seed of a run, as far as its run.json has them: "car-racing, preset quick, seed 1"."""
    content = json_or_none(Path(run_dir) / "run.json")
    if not isinstance(content, dict):
        return ""
    words = [str(content["task"])] if "task" in content else []
    return printable(", ".join(words + [f"{name} {content[name]}" for name in ("preset", "seed") if name in content]))


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
