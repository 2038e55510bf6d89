"""The verb that lists runs."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.cli.options import parse
from worldmodels.core.numbers import score_text
from worldmodels.core.settings import text
from worldmodels.core.terminal import duration
from worldmodels.run.listing import RunStatus
from worldmodels.run.listing import runs as runs_in

_WIDTH = 200


@dataclass(frozen=True)
class RunsOptions:
    """List the runs below a folder: what they are, how far they are and what they score. Reads only."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[FOLDER]")] = text(Path("runs"))
    """The folder that holds the runs, up to three folders deep."""
    json: Path | None = text(None)
    """Also write the list to this file."""


def runs(verb: str, arguments: Sequence[str], description: str) -> int:
    """List runs."""
    options = parse(RunsOptions, verb, arguments, description=description)
    found = runs_in(options.folder)
    if options.json is not None:
        from worldmodels.core.files import write_json

        write_json(options.json, [asdict(run) | {"directory": str(run.directory)} for run in found])
    if not found:
        print(f"no runs in {options.folder}; worldmodels train --help says how to make one")
        return 0
    _print(found)
    return 0


def _print(found: Sequence[RunStatus]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("run", "settings", "stages"):
        table.add_column(column, overflow="fold")
    for column in ("score", "time", "last worked on"):
        table.add_column(column, justify="right", no_wrap=column != "last worked on")
    for run in found:
        cells = run.name, _settings(run), _stages(run), _score(run), _time(run), _ago(run.changed)
        # The words come out of files: no control characters, and no markup of rich.
        table.add_row(*(Text("".join(c if c.isprintable() else "?" for c in cell)) for cell in cells))
    # Where nobody looks at a screen, lines need not fit it.
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def _settings(run: RunStatus) -> str:
    if run.task is None:
        return ""
    rounds = f", {run.rounds} rounds" if run.rounds != 1 else ""
    return f"{run.task} {run.preset}, seed {run.seed}{rounds}"


def _stages(run: RunStatus) -> str:
    """How far it is: "6/6 finished", "1/6 running: vision at step 780"."""
    counted = f"{run.stages_finished}/{run.stages} " if run.stages else ""
    return f"{counted}{run.state}{f': {run.note}' if run.note else ''}"


def _score(run: RunStatus) -> str:
    """The mean, its interval and the number of episodes."""
    if run.mean is None:
        return ""
    ends = None if run.ci95 is None else " to ".join(score_text(end, run.mean) for end in run.ci95)
    interval = "" if ends is None else f" ({ends})"
    episodes = f", {run.episodes:,} episodes" if run.episodes is not None else ""
    return f"{score_text(run.mean)}{interval}{episodes}"


def _time(run: RunStatus) -> str:
    return duration(run.seconds) if run.seconds else ""


def _ago(moment: float) -> str:
    """How long ago a moment was: "42s ago", "3d ago"; empty if it is unknown."""
    if not moment:
        return ""
    seconds = max(0.0, time.time() - moment)
    return f"{seconds / 86400:.0f}d ago" if seconds > 2 * 86400 else f"{duration(seconds)} ago"
