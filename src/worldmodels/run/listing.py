"""A list of runs with their state, for people. Nothing is imported that takes long, and damage is only reported."""

import contextlib
import csv
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.settings import from_json
from worldmodels.run.config import Config, later_round
from worldmodels.run.names import FOLDERS, LAYOUT, stages_of

_DEPTH = 3
"""How many folders below the given one a run may be."""
_LARGEST = 16 << 20
_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*:/")
"""What ``storage.place.is_url`` finds, too, whose import takes long."""


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run without reading its results.

    name: its folder relative to the one that was listed; state: "finished", "running" (another process holds its lock),
    "stopped" or "damaged"; note: the stage that was begun and its progress, or what is damaged, in words; task, preset,
    seed, rounds: of its settings, None if they cannot be read; stages_finished of stages: of all rounds; mean, ci95
    (low, high), episodes: of its score, None without one; finished: the share of these episodes that reached the goal
    and what they are called, None if that is unknown; seconds: time spent so far; changed: when it was last worked on,
    in seconds since 1970, or 0 if that is unknown, as for runs in a bucket.
    """

    name: str
    directory: Path
    state: str
    note: str = ""
    task: str | None = None
    preset: str | None = None
    seed: int | None = None
    rounds: int | None = None
    stages_finished: int = 0
    stages: int = 0
    mean: float | None = None
    ci95: tuple[float, float] | None = None
    episodes: int | None = None
    finished: tuple[float, str] | None = None
    seconds: float = 0.0
    changed: float = 0.0


def runs(folder: Path | str = "runs") -> list[RunStatus]:
    """Every run in ``folder`` and up to three folders below it, in the order of their names.

    Runs that are damaged, or of another version, are listed as such. The folder may be the URL of one in a bucket.
    Raises :class:`UserError` if there is no such folder.

    Example: ``[run.name for run in runs("runs") if run.state == "finished"]``
    """
    if _URL.match(str(folder)):
        from worldmodels.run.elsewhere import runs_at

        # The times of the files are those of their copies here.
        remote = [(run, replace(_status(run.folder, run.name), changed=0.0)) for run in runs_at(str(folder), _DEPTH)]
        return [replace(status, state="running") if run.in_use else status for run, status in remote]
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected one that holds runs, such as runs")
    found = sorted(_runs_below(folder, _DEPTH), key=str)
    return [_status(directory, str(directory.relative_to(folder)) or ".") for directory in found]


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "run.json").exists():
        yield folder
        return
    with contextlib.suppress(OSError):
        for path in folder.iterdir() if depth else ():
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                yield from _runs_below(path, depth - 1)


def _status(directory: Path, name: str) -> RunStatus:
    changed = max(_changed(directory / "run.json"), _changed(directory / "summary.json"))
    running = _is_locked(directory / "lock")
    try:
        config = _config(directory)
    except UserError as error:
        return RunStatus(name, directory, "running" if running else "damaged", str(error), changed=changed)
    finished = total = 0
    seconds, note, damaged = 0.0, "", ""
    for number in range(1, config.rounds + 1):
        for stage in stages_of(number, config.rounds):
            total += 1
            path = directory / f"round-{number}" / FOLDERS[stage]
            done = _content(path / "done.json")
            finished += done is not None
            spent = done if done is not None else _content(path / "elapsed.json")
            seconds += _number((spent or {}).get("seconds")) or 0.0
            marks = ("done.json", "begun.json", "elapsed.json", "metrics.csv")
            changed = max([changed, *(_changed(path / mark) for mark in marks)])
            if done is None and (path / "done.json").exists():
                damaged = damaged or f"{path / 'done.json'} is damaged"
            elif done is None and (path / "begun.json").exists():
                label = stage if config.rounds == 1 else f"{stage} {number}"
                note = note or f"{label}{_progress(path, stage, config if number == 1 else later_round(config))}"
    state = "damaged" if damaged else "finished" if finished == total else "stopped"
    mean, ci95, episodes, reached = _score(directory / f"round-{config.rounds}" / FOLDERS["evaluate"])
    return RunStatus(
        name=name,
        directory=directory,
        state="running" if running else state,
        note=damaged or note,
        task=config.task,
        preset=config.preset,
        seed=config.seed,
        rounds=config.rounds,
        stages_finished=finished,
        stages=total,
        mean=mean,
        ci95=ci95,
        episodes=episodes,
        finished=reached,
        seconds=seconds,
        changed=changed,
    )


def _config(directory: Path) -> Config:
    content = _content(directory / "run.json")
    if content is None:
        raise UserError("its run.json is damaged")
    layout = content.get("layout", 1)
    if layout != LAYOUT:
        raise UserError(f"made by {'an older' if layout == 1 else 'another'} version of worldmodels")
    return from_json(Config, {item.name: content[item.name] for item in fields(Config) if item.name in content})


def _progress(path: Path, stage: str, config: Config) -> str:
    """How far a stage is: " 32/48", " real 12/24" or " at step 400"; empty if nothing is known."""
    totals = {
        "collect": config.collect.episodes + config.collect.reference_episodes,
        "memory": config.memory.steps,
        "evaluate": config.evaluate.episodes,
    }
    if stage == "evaluate":
        done = len((_content(path / "partial.json") or {}).get("returns") or ())
        return f" {done:,}/{totals[stage]:,}" if done else ""
    if stage == "controller":
        for number, name in reversed(list(enumerate(config.evolution.sequence, start=1))):
            step = _last_step(path / f"{number}-{name}" / "metrics.csv")
            if step and name in config.evolution.phases:
                return f" {name} {step:,}/{config.evolution.phases[name].generations:,}"
        return ""
    step = _last_step(path / "metrics.csv")
    if not step:
        return ""
    return f" {step:,}/{totals[stage]:,}" if stage in totals else f" at step {step:,}"


def _score(
    path: Path,
) -> tuple[float | None, tuple[float, float] | None, int | None, tuple[float, str] | None]:
    """Mean, interval and number of episodes of a finished evaluation, and the share of those that reached the goal."""
    content = (_content(path / "evaluation.json") if (path / "done.json").exists() else None) or {}
    mean, interval, returns = _number(content.get("mean")), content.get("ci95"), content.get("returns")
    bounds = [_number(bound) for bound in interval] if isinstance(interval, list) else []
    low, high = bounds if len(bounds) == 2 else (None, None)
    ci95 = (low, high) if low is not None and high is not None else None
    found = content.get("finished")
    share = _number(found.get("share")) if isinstance(found, dict) else None
    reached = (share, str(found["goal"])) if found and share is not None and "goal" in found else None
    return mean, ci95, len(returns) if isinstance(returns, list) else None, reached


def _content(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _last_step(path: Path) -> int | None:
    """The first cell of the last complete line of a table."""
    try:
        lines = path.read_text(errors="replace").rpartition("\n")[0].splitlines()
        cells = next(csv.reader(lines[-1:]), [""])
        return int(cells[0]) if cells and cells[0].isdigit() else None
    except (OSError, ValueError, csv.Error):
        return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a run."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
