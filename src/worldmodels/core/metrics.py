"""Metrics of a stage by step, consistent after a resume: as a CSV table, in TensorBoard, and as events."""

import csv
import io
import itertools
import math
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.core.events import Measured, emit, say
from worldmodels.core.files import disk_errors, write_bytes

_LARGEST = 256 << 20
"""Largest table that is read, in bytes."""


class MetricsLog:
    """Rows of numbers by step: in ``metrics.csv``, for TensorBoard in ``tensorboard/``, and as events.

    resume_step: the step from which a resumed stage continues. Later rows of the killed process are dropped, so that
    the table and the curves are those of an uninterrupted run. A damaged table is kept under another name and continued
    without its damaged rows, because no result depends on it. TensorBoard's tags begin with the folder's path inside
    its round ("vision/loss", "controller/1-real/mean"), so that curves of different stages are different charts.
    """

    def __init__(self, directory: Path, columns: tuple[str, ...], resume_step: int = 0) -> None:
        self._stage = directory.name
        self._table = _Table(directory / "metrics.csv", ("step", *columns), resume_step)
        self._curves = _TensorBoard(directory, resume_step)

    def has(self, step: int) -> bool:
        """Whether the table has a row for ``step``."""
        return self._table.has(step)

    def log(self, step: int, **numbers: float) -> None:
        """Add a row; columns for which no number is given stay empty."""
        values = {name: float(value) for name, value in numbers.items()}
        for sink in (self._table, self._curves):
            sink.write(step, values)
        emit(Measured(self._stage, step, values))

    def close(self) -> None:
        """Close TensorBoard's file."""
        self._curves.close()


class _Table:
    """A CSV file, to which every row is written immediately."""

    def __init__(self, path: Path, columns: tuple[str, ...], resume_step: int) -> None:
        self._path, self._columns = path, columns
        names, cells, damage = _cells(path)
        if names and set(names) < set(columns):
            # Of an earlier version, which measured less: the cells of the other columns stay empty.
            named = [dict(zip(names, row, strict=True)) for row in cells]
            cells = [[row.get(name, "") for name in columns] for row in named]
        elif tuple(names) != columns:
            damage = damage or (f"its columns are not {', '.join(columns)}" if names else "")
            cells = []
        if damage:
            kept = _set_aside(path)
            say(f"{path} is damaged ({damage}); it is kept as {kept.name}, and its {len(cells):,} good rows go on")
        rows = [dict(zip(columns, row, strict=True)) for row in cells if int(row[0]) <= resume_step]
        self._steps = {row["step"] for row in rows}
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(path, text.getvalue().encode())

    def has(self, step: int) -> bool:
        return str(step) in self._steps

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        row = {"step": str(step)} | {name: repr(value) for name, value in numbers.items()}
        with disk_errors(self._path), open(self._path, "a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)
        self._steps.add(str(step))


class _TensorBoard:
    """TensorBoard's event files, one per process. Created with the first row, because importing TensorBoard is slow."""

    def __init__(self, directory: Path, resume_step: int) -> None:
        self._directory, self._resume_step = directory / "tensorboard", resume_step
        self._prefix = _path_in_round(directory)
        self._events: _Events | None = None

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        with disk_errors(self._directory):
            if self._events is None:
                self._events = _Events(self._directory, self._resume_step + 1)
            self._events.write(step, {f"{self._prefix}/{name}": value for name, value in numbers.items()})

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def _path_in_round(directory: Path) -> str:
    """The folder's path inside the folder of its round ("controller/1-real"); its name if it is in none."""
    parts = directory.parts
    rounds = [place for place, name in enumerate(parts[:-1]) if name.startswith("round-")]
    return "/".join(parts[rounds[-1] + 1 :]) if rounds else directory.name


class _Events:
    """One event file of TensorBoard, to which every row is written immediately.

    TensorBoard's own writer buffers rows for minutes, and they are lost if the process is killed. It also writes from a
    background thread, where the error of a full disk cannot be caught.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(directory / name, "ab", buffering=0)  # noqa: SIM115
        self._writer: Any = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), step=first_step, file_version="brain.Event:2"))
        # Tells TensorBoard to discard what an earlier process wrote from this step on.
        self._add(Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


def _set_aside(path: Path) -> Path:
    """Give a file a name that is free: ``metrics.csv.damaged-1``."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    free = next(name for name in names if not os.path.lexists(name))
    with disk_errors(path):
        os.rename(path, free)
    return free


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """The columns of a ``metrics.csv`` by name, each (R,) float64 with NaN for empty cells.

    The result is empty if the file is absent or has no rows. An incomplete last line and damaged rows are ignored.
    """
    names, rows, _ = _cells(path)
    numbers = np.array([[_value(cell) for cell in row] for row in rows])
    return dict(zip(names, numbers.T, strict=True)) if rows else {}


def _cells(path: Path) -> tuple[list[str], list[list[str]], str]:
    """The names of the columns, the rows (a step, and a number or nothing per column), and what is damaged, in words.

    A last line without a line end is no damage: it was left by a killed process, or is still being written.
    """
    if not path.is_file():
        return [], [], "it is not a regular file" if os.path.lexists(path) else ""
    if path.stat().st_size > _LARGEST:
        return [], [], f"it is larger than {_LARGEST >> 20} MiB"
    text = path.read_bytes().decode(errors="replace")
    whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
    try:
        names, *lines = list(csv.reader(whole)) or [[]]
    except csv.Error as error:
        return [], [], str(error)
    if names and (names[0] != "step" or len(set(names)) < len(names)):
        return [], [], "its first line does not name the columns"
    rows = [row for row in lines if len(row) == len(names) and re.fullmatch("[0-9]{1,15}", row[0]) and _numbers(row)]
    return names, rows, f"{len(lines) - len(rows):,} damaged rows" if len(rows) < len(lines) else ""


def _numbers(row: Sequence[str]) -> bool:
    return not any(cell and math.isnan(_value(cell)) and cell != "nan" for cell in row)


def _value(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
