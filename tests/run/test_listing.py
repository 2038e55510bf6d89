"""The list of runs: finished, running, stopped, damaged and old ones, read fast and without changing anything."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cases import Launched, call, copy_of, flip, refused, snapshot, truncate
from worldmodels.core.files import read_json, write_json
from worldmodels.run.listing import runs
from worldmodels.run.reader import RunReader

pytestmark = pytest.mark.usefixtures("short_world")


def test_a_finished_run_is_listed_with_its_settings_score_and_time(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "of" / "today" / "run")
    before = snapshot(run)
    (status,) = runs(tmp_path)
    reader = RunReader(run)
    score = reader.evaluation()
    assert (status.name, status.directory, status.state, status.note) == ("of/today/run", run, "finished", "")
    assert (status.task, status.preset, status.seed, status.rounds) == ("car-racing", "standard", 1, 1)
    assert (status.stages_finished, status.stages) == (6, 6)
    assert status.mean == score["mean"] and status.episodes == 2
    assert list(status.ci95 or ()) == pytest.approx(score["ci95"])
    assert status.finished == (score["finished"]["share"], "finished laps") and 0 <= score["finished"]["share"] <= 1
    assert status.seconds == pytest.approx(sum(stage.seconds or 0 for stage in reader.stages()))
    assert status.changed == max(path.stat().st_mtime for path in run.rglob("*") if path.name in MARKS)
    assert snapshot(run) == before


MARKS = {"run.json", "summary.json", "done.json", "metrics.csv"}


def test_a_run_at_work_is_marked_and_one_that_was_killed_is_stopped(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run", until="memory")
    stopping = {"at": "worldmodels.memory.train:memory_loss", "call": 3, "do": "SIGSTOP"}
    writer = Launched("train", "car-racing", "--run", run, faults=[stopping])
    try:
        writer.wait_until_stopped()
        (status,) = runs(tmp_path)
        assert (status.state, status.stages_finished, status.mean) == ("running", 3, None)
        assert re.fullmatch(r"memory( \d/5)?", status.note)
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.finish()
    (status,) = runs(tmp_path)
    assert status.state == "stopped" and status.note.startswith("memory")


def test_how_far_a_stage_is_can_be_seen(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run")
    for folder, note in (
        ("episodes", "collect 5/5"),
        ("vision", "vision at step 6"),
        ("memory", "memory 5/5"),
        ("controller", "controller finetune 3/3"),
    ):
        done, begun = (run / "round-1" / folder / name for name in ("done.json", "begun.json"))
        done.rename(begun)
        (status,) = runs(tmp_path)
        assert (status.state, status.note) == ("stopped", note)
        begun.rename(done)


def test_what_cannot_be_read_has_a_row_that_says_so(finished: Path, tmp_path: Path) -> None:
    for name in ("cut", "empty", "folder", "old", "later", "note", "score", "sound"):
        copy_of(finished, tmp_path / name)
    truncate(tmp_path / "cut" / "run.json")
    (tmp_path / "empty" / "run.json").write_text("[]")
    (tmp_path / "folder" / "run.json").unlink()
    (tmp_path / "folder" / "run.json").mkdir()
    for name, layout in (("old", 1), ("later", 9)):
        content = read_json(tmp_path / name / "run.json", checksum=True)
        write_json(tmp_path / name / "run.json", content | {"layout": layout}, checksum=True)
    flip(tmp_path / "note" / "round-1" / "vision" / "done.json")
    (tmp_path / "note" / "round-1" / "vision" / "done.json").write_bytes(b"\xff{")
    (tmp_path / "score" / "round-1" / "evaluation" / "evaluation.json").write_text('{"mean": "high", "ci95": [1]}')
    found = {status.name: status for status in runs(tmp_path)}
    assert [status.state for status in found.values()] == [
        *["damaged"] * 5,
        "damaged",
        "finished",
        "finished",
    ]
    assert found["old"].note == "made by an older version of worldmodels"
    assert found["later"].note == "made by another version of worldmodels"
    assert found["cut"].note == "its run.json is damaged" and found["note"].stages_finished == 5
    assert found["score"].mean is None and found["sound"].mean is not None


def test_the_command_prints_a_row_for_every_run_and_writes_json(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(finished, tmp_path / "here" / "[red]one")
    out = tmp_path / "list.json"
    code = (
        "import sys; from worldmodels.cli.main import main; "
        f"main(['runs', {str(tmp_path / 'here')!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert "[red]one" in done.stdout and "car-racing standard, seed 1" in done.stdout and "6/6 finished" in done.stdout
    assert call(capsys, "runs", tmp_path / "here", "--json", out).code == 0
    (row,) = json.loads(out.read_bytes())
    assert row["name"] == "[red]one" and row["state"] == "finished" and row["stages"] == 6
    refused(call(capsys, "runs", tmp_path / "nothing"), "is not a folder")
