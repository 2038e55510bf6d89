"""Whoever listens is told what a run does, in order, with the numbers that its tables keep."""

from pathlib import Path

import numpy as np
import pytest

from cases import TINY, call, copy_of
from worldmodels.cli.runs import run_options
from worldmodels.core.events import Advanced, Ended, Event, Measured, Message, Started, listening
from worldmodels.core.metrics import read_metrics
from worldmodels.run.experiments import train_run

pytestmark = pytest.mark.usefixtures("short_world")

WORK = [
    ("collect", "episodes", 5, "episodes"),
    ("vision", "vision", 96, "frames"),
    ("encode", "latents", 325, "frames"),
    ("memory", "memory", 400, "transitions"),
    ("real", "controller/1-real", 3, "generations"),
    ("finetune", "controller/2-finetune", 3, "generations"),
    ("evaluate", "evaluation", 2, "episodes"),
]
"""What the work is called, the folder of its table, and how much there is of it."""


def test_a_listener_hears_of_every_stage_in_order_and_of_every_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_options("train", ["car-racing", *TINY], "").config()
    capsys.readouterr()
    heard = list[Event]()
    with listening(heard.append):
        train_run(config, tmp_path, device="cpu")
    assert capsys.readouterr().err == "", "the terminal is not told as well"

    begun = [event for event in heard if isinstance(event, Started)]
    assert begun == [Started(what, total, unit, 0) for what, _, total, unit in WORK]
    ended = [event for event in heard if isinstance(event, Ended)]
    assert [(event.what, event.done, event.completed) for event in ended] == [
        (what, total, True) for what, _, total, _ in WORK
    ]
    for start, end in zip(begun, ended, strict=True):
        between = [event for event in heard[heard.index(start) : heard.index(end)] if isinstance(event, Advanced)]
        assert {event.what for event in between} == {start.what}
        amounts = [event.done for event in between]
        assert amounts == sorted(amounts) and amounts[-1] == start.total
    assert heard.index(ended[0]) < heard.index(begun[1]), "one stage after the other"

    for what, folder, _, _ in WORK:
        measured = [event for event in heard if isinstance(event, Measured) and event.stage == Path(folder).name]
        table = read_metrics(tmp_path / "round-1" / folder / "metrics.csv")
        assert measured and [event.step for event in measured] == table["step"].tolist(), what
        for row, event in enumerate(measured):
            assert set(event.numbers) <= set(table)
            for name in set(table) - {"step"}:
                np.testing.assert_equal(table[name][row], event.numbers.get(name, np.nan))


def test_without_a_listener_the_terminal_is_told(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path / "run", until="encode")
    lines = call(capsys, "encode", "car-racing", "--run", run).err.splitlines()
    assert lines[0].startswith("encode: 325 frames in ") and lines[-1].startswith("encode: ")
    again = call(capsys, "encode", "car-racing", "--run", run).err.splitlines()
    assert again[0] == "encode: already done"


def test_work_that_goes_on_says_how_much_was_done_before(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run")
    config = run_options("train", ["--run", str(run), "--evolution.phases.finetune.generations", "4"], "").config()
    heard = list[Event]()
    with listening(heard.append):
        train_run(config, run, device="cpu")
    begun = {event.what: (event.done, event.total) for event in heard if isinstance(event, Started)}
    begun.pop("evaluate", None)  # scored anew if one more generation made another agent
    assert begun == {"real": (3, 3), "finetune": (3, 4)}
    steps = [event.step for event in heard if isinstance(event, Measured) and event.stage == "2-finetune"]
    assert steps == [4]
    said = [event.text for event in heard if isinstance(event, Message)]
    assert said[:4] == [f"{stage}: already done" for stage in ("collect", "vision", "encode", "memory")]
