"""The log of a stage's numbers: a table and TensorBoard's curves."""

import csv
from pathlib import Path

import pytest

from worldmodels.core.metrics import MetricsLog


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_after_the_step_of_a_resume_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("loss", "extra"))
    for step in (10, 20, 30):
        log.log(step, loss=1 / step, extra=step)
    log.close()
    log = MetricsLog(tmp_path, ("loss", "extra"), resume_step=20)
    assert [row["step"] for row in rows(tmp_path)] == ["10", "20"]
    log.log(30, loss=0.5)
    log.close()
    assert [(row["step"], row["loss"], row["extra"]) for row in rows(tmp_path)] == [
        ("10", repr(0.1), "10.0"), ("20", repr(0.05), "20.0"), ("30", "0.5", ""),
    ]  # fmt: skip


def test_numbers_keep_all_their_digits(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("loss",))
    log.log(1, loss=1 / 3)
    log.close()
    assert float(rows(tmp_path)[0]["loss"]) == 1 / 3


@pytest.mark.parametrize("torn", ["30", "30,0.2", "\x00\xff", "x,1,2", '"30,0.2'])
def test_a_torn_line_of_a_killed_process_is_no_row(tmp_path: Path, torn: str) -> None:
    log = MetricsLog(tmp_path, ("loss", "extra"))
    log.log(10, loss=0.1, extra=1)
    log.close()
    with open(tmp_path / "metrics.csv", "a", encoding="latin-1") as file:
        file.write(torn)
    log = MetricsLog(tmp_path, ("loss", "extra"), resume_step=50)
    log.log(40, loss=0.4, extra=4)
    log.close()
    assert [row["step"] for row in rows(tmp_path)] == ["10", "40"]


def test_a_log_with_other_columns_starts_anew(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("old",))
    log.log(10, old=1)
    log.close()
    MetricsLog(tmp_path, ("new",), resume_step=10).close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,new"]


def test_tensorboard_reads_what_was_logged_and_forgets_what_was_dropped(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path, ("loss",))
    for step in (10, 20, 30):
        log.log(step, loss=step)
    log.close()
    log = MetricsLog(tmp_path, ("loss",), resume_step=20)
    log.log(30, loss=300)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(10, 10), (20, 20), (30, 300)]
