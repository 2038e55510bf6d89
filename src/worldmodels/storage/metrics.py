"""Numbers over time of one stage, as CSV and for TensorBoard, consistent after a resume."""

import csv
import io
from pathlib import Path
from typing import Any

from worldmodels.storage.atomic import write_bytes


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
        self._writer: Any = None
        self._flush()

    def log(self, step: int, **numbers: float) -> None:
        """Add one row; columns that are not given stay empty."""
        row = {"step": str(step)} | {name: repr(float(value)) for name, value in numbers.items()}
        self._rows.append(row)
        with open(self._path, "a", newline="") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(row)
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self._directory), purge_step=self._resume_step + 1)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def _flush(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_bytes(self._path, text.getvalue().encode())

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


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
