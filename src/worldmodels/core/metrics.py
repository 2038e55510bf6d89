"""Metrics of a stage by step, consistent after a resume: as a CSV table, in TensorBoard, and as events."""

import csv
import io
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.core.events import Measured, emit
from worldmodels.core.files import disk_errors, write_bytes


class MetricsLog:
    """Rows of numbers by step: in ``metrics.csv``, for TensorBoard in ``tensorboard/``, and as events.

    resume_step: the step from which a resumed stage continues. Later rows of the killed process are dropped, so that
    the table and the curves are those of an uninterrupted run. TensorBoard's tags begin with the folder's path inside
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
        rows = [row for row in _read(path, columns) if float(row["step"]) <= resume_step]
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


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a table; none if its columns are not ``columns``."""
    names, rows = _cells(path)
    return [dict(zip(names, row, strict=True)) for row in rows] if tuple(names) == columns else []


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """The columns of a ``metrics.csv`` by name, each (R,) float64 with NaN for empty cells.

    The result is empty if the file is absent or has no rows. An incomplete last line is ignored.
    """
    names, rows = _cells(path)
    numbers = np.array([[_value(cell) for cell in row] for row in rows])
    return dict(zip(names, numbers.T, strict=True)) if rows else {}


def _cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the complete rows: those with a step, a cell per column and a line end."""
    if not path.is_file():
        return [], []
    text = path.read_bytes().decode(errors="replace")
    # A last line without a line end was left by a killed process, or is still being written.
    whole = io.StringIO(text[: text.rfind("\n") + 1], newline="")
    try:
        names, *rows = list(csv.reader(whole)) or [[]]
    except csv.Error:
        return [], []
    return names, [row for row in rows if len(row) == len(names) and row[0].isdigit()]


def _value(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
