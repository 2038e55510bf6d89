"""Numbers over time of one stage, as CSV and for TensorBoard, consistent after a resume."""

import csv
import io
import os
import socket
import time
from pathlib import Path
from typing import Any

from worldmodels.storage.atomic import disk_errors, write_bytes


class MetricsLog:
    """Rows of numbers by step in ``directory/metrics.csv`` and TensorBoard events in ``directory/tensorboard``.

    A resumed stage opens it with the step it resumes at: later rows of the killed process are dropped, so that the
    file equals that of an uninterrupted run.
    """

    def __init__(self, directory: Path, columns: tuple[str, ...], resume_step: int = 0) -> None:
        self._path = directory / "metrics.csv"
        self._columns = ("step", *columns)
        self._rows = [row for row in _read(self._path, self._columns) if float(row["step"]) <= resume_step]
        self._directory, self._resume_step = directory / "tensorboard", resume_step
        self._events: _Events | None = None
        self._flush()

    def has(self, step: int) -> bool:
        """Whether there is a row of this step."""
        return any(row["step"] == str(step) for row in self._rows)

    def log(self, step: int, **numbers: float) -> None:
        """Add one row; columns that are not given stay empty."""
        row = {"step": str(step)} | {name: repr(float(value)) for name, value in numbers.items()}
        self._rows.append(row)
        with disk_errors(self._path):
            with open(self._path, "a", newline="") as file:
                csv.DictWriter(file, self._columns, restval="").writerow(row)
            if self._events is None:
                self._events = _Events(self._directory, self._resume_step + 1)
            self._events.write(step, numbers)

    def _flush(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_bytes(self._path, text.getvalue().encode())

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()


class _Events:
    """One file of TensorBoard's, on the disk after every row.

    TensorBoard's own writer holds rows back for minutes, which a killed process loses, and meets a full disk in a
    thread where nobody can catch it.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(directory / name, "ab", buffering=0)  # noqa: SIM115
        self._writer: Any = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), step=first_step, file_version="brain.Event:2"))
        # Tells TensorBoard to forget what an earlier process wrote from this step on.
        self._add(Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in numbers.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    rows = []
    with open(path, newline="", errors="replace") as file:
        for row in csv.DictReader(file):
            # A line that a killed process left unfinished is not a row.
            if tuple(row) == columns and all(value is not None for value in row.values()) and _number(row["step"]):
                rows.append(row)
    return rows


def _number(text: str) -> bool:
    return text.isdigit()
