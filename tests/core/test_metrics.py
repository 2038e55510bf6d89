"""The log of a stage's numbers: a table and TensorBoard's curves."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from worldmodels.core.events import Event, Measured, Message, listening
from worldmodels.core.metrics import MetricsLog, read_metrics


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


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: steps and values by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in tags}


@pytest.mark.parametrize(
    ("folder", "tag"),
    [
        ("run/round-1/vision", "vision/loss"),
        ("run/round-2/memory-2", "memory-2/loss"),
        ("round-9/run/round-1/controller/1-real", "controller/1-real/loss"),
        ("elsewhere/round-1", "round-1/loss"),
        ("own", "own/loss"),
    ],
)
def test_the_curves_of_a_stage_bear_its_name(folder: str, tag: str, tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / folder, ("loss",))
    log.log(1, loss=2.0)
    log.close()
    assert scalars(tmp_path / folder) == {tag: [(1, 2.0)]}


def test_tensorboard_reads_what_was_logged_and_forgets_what_was_dropped(tmp_path: Path) -> None:
    tmp_path /= "vision"
    log = MetricsLog(tmp_path, ("loss",))
    for step in (10, 20, 30):
        log.log(step, loss=step)
    log.close()
    log = MetricsLog(tmp_path, ("loss",), resume_step=20)
    log.log(30, loss=300)
    log.close()
    assert scalars(tmp_path) == {"vision/loss": [(10, 10), (20, 20), (30, 300)]}


def test_every_row_is_an_event_with_the_same_numbers(tmp_path: Path) -> None:
    heard = list[Event]()
    with listening(heard.append):
        log = MetricsLog(tmp_path / "vision", ("loss", "extra"))
        log.log(10, loss=1 / 3)
        log.log(20, extra=2)
        log.close()
    assert heard == [Measured("vision", 10, {"loss": 1 / 3}), Measured("vision", 20, {"extra": 2.0})]
    table = read_metrics(tmp_path / "vision" / "metrics.csv")
    for row, event in enumerate(heard):
        assert isinstance(event, Measured) and table["step"][row] == event.step
        for name in ("loss", "extra"):
            value = event.numbers.get(name, np.nan)
            np.testing.assert_equal(table[name][row], value)


def test_a_table_is_read_as_columns_with_nan_where_a_cell_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,extra\n10,0.5,\n20,,3\n")
    found = read_metrics(path)
    assert list(found) == ["step", "loss", "extra"]
    assert all(column.dtype == np.float64 for column in found.values())
    np.testing.assert_equal(found["loss"], [0.5, np.nan])
    np.testing.assert_equal(found["extra"], [np.nan, 3.0])


@pytest.mark.parametrize("content", [None, "", "step,loss\n", "step,loss\n10,0", "step,loss\n10,0.25", "\x00\xff\xfe"])
def test_a_table_that_has_no_rows_yet_has_no_numbers(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    assert read_metrics(path) == {}


@pytest.mark.parametrize("torn", ["20", "20,0.", "20,0.2,", "20,0.2,3", "\x00\xff", '"20,0.2'])
def test_a_row_that_is_being_written_is_left_out_until_it_is_whole(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,extra\n10,0.5,1\n" + torn, encoding="latin-1")
    assert read_metrics(path)["step"].tolist() == [10]


def test_a_row_that_was_cut_in_the_middle_of_a_number_is_not_kept_by_who_goes_on(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, ("loss",))
    for step in (10, 20):
        log.log(step, loss=0.125)
    log.close()
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-4])
    MetricsLog(tmp_path, ("loss",), resume_step=20).close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [("10", "0.125")]


DAMAGES = {
    "a flipped bit in the header": ("stap,loss\n10,0.5\n", []),
    "another name of a column": ("step,lozz\n10,0.5\n", []),
    "a column twice": ("step,loss,loss\n10,0.5,1\n", []),
    "a huge cell": ("step,loss\n10,0.5\n20," + "9" * 200_000 + "\n", []),
    "a word for a number": ("step,loss\n10,0.5\n20,O.5\n30,0.25\n", ["10", "30"]),
    "a step that is no number": ("step,loss\n10,0.5\n²,0.5\n", ["10"]),
    "a giant step": ("step,loss\n" + "9" * 400 + ",0.5\n20,0.5\n", ["20"]),
    "an escape": ("step,loss\n10,\x1b[31m\n20,0.5\n", ["20"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_kept_under_another_name_and_its_good_rows_go_on(damage: str, tmp_path: Path) -> None:
    text, kept = DAMAGES[damage]
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with listening((heard := list[Event]()).append):
        log = MetricsLog(tmp_path, ("loss",), resume_step=50)
    log.log(60, loss=1)
    log.close()
    assert [row["step"] for row in rows(tmp_path)] == [*kept, "60"]
    assert (tmp_path / "metrics.csv.damaged-1").read_text() == text
    (message,) = (event for event in heard if isinstance(event, Message))
    assert str(path) in message.text and "metrics.csv.damaged-1" in message.text and "\n" not in message.text
    path.write_text(text)
    MetricsLog(tmp_path, ("loss",), resume_step=50).close()
    assert (tmp_path / "metrics.csv.damaged-2").read_text() == text


def test_a_pipe_in_the_place_of_a_table_is_set_aside_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.csv")
    assert read_metrics(tmp_path / "metrics.csv") == {}
    MetricsLog(tmp_path, ("loss",)).close()
    assert (tmp_path / "metrics.csv").is_file() and (tmp_path / "metrics.csv.damaged-1").is_fifo()
