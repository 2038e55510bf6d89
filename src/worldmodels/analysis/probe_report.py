"""The results of probes of V as a printed table, a CSV, a plot and JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.analysis.probe_plot import probe_plot
from worldmodels.core.events import say
from worldmodels.core.files import write_json
from worldmodels.core.tables import write_table
from worldmodels.core.terminal import console

SOURCES = ("latents", "pixels", "constant")
"""The features from which a state is predicted: mu of V, the frame itself, nothing."""


def write(result: Mapping[str, Any], out: Path, json: Path | None) -> None:
    """Write ``probe.csv`` and ``probe.png`` to the folder ``out``, all figures to the file ``json``; print a table."""
    write_table(out / "probe.csv", result["rows"])
    about = [f"{name}, {_episodes(counts)}" for name, counts in result["worlds"].items()]
    probe_plot(result["rows"], out / "probe.png", f"{'; '.join(about)}; seed {result['seed']}")
    if json is not None:
        write_json(json, dict(result))
    _print(result["rows"])
    for task, counts in result["worlds"].items():
        say(f"{task}: {counts['frames']:,} frames of {_episodes(counts)}, a fifth of them held out")
    say(f"every component: {out / 'probe.csv'}; picture: {out / 'probe.png'}")


def _episodes(counts: Mapping[str, Any]) -> str:
    limit = f" of at most {counts['steps']:,} steps" if counts["cut_short"] else ""
    return f"{counts['episodes']:,} new episodes{limit}"


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title="predicted by a linear map from", title_justify="left")
    for column in ("variable", "measure", "V of"):
        table.add_column(column)
    for column in SOURCES:
        table.add_column(column, justify="right")
    means = [row for row in rows if row["component"] == -1]
    order = list(dict.fromkeys((row["variable"], row["measure"]) for row in means))
    for row in sorted(means, key=lambda row: order.index((row["variable"], row["measure"]))):
        numbers = ["" if row[source] is None else f"{row[source]:.3f}" for source in SOURCES]
        table.add_row(row["variable"], row["measure"], row["vision"], *numbers)
    console().print(table)
