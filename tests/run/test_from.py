"""A new run from another one: what has the same inputs is taken over, the rest is done again, the old run stays."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from cases import STAGES, TINY, Launched, call, command, copy_of, digests, flip, litter, refused, snapshot
from worldmodels.core.files import read_json

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]
KILLED = -signal.SIGKILL


def times(run: Path) -> dict[str, int]:
    """When every file of a run was last changed."""
    return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in run.rglob("*")}


def test_what_a_changed_setting_does_not_touch_is_taken_over_and_the_rest_is_as_from_scratch(
    finished: Path, tmp_path: Path
) -> None:
    old, new, scratch = copy_of(finished, tmp_path / "old"), tmp_path / "new", tmp_path / "scratch"
    before = snapshot(old), times(old)
    outcome = command("train", "--from", old, "--run", new, "--memory.steps", "4")
    assert outcome.code == 0, outcome.err
    for stage in ("collect", "vision", "encode"):
        assert f"{stage}: taken over from {old}" in outcome.err.splitlines()
        assert read_json(new / "round-1" / STAGES[stage] / "done.json", checksum=True)["taken_over_from"] == str(old)
    assert "memory: done again, because --memory.steps is 4, not 5" in outcome.err
    assert "controller: done again, because M is new" in outcome.err
    assert "evaluate: done again, because the agent is new" in outcome.err
    assert (snapshot(old), times(old)) == before
    chunk = Path("round-1/episodes/shard-00000.zarr/frames/c/0/0/0/0")
    assert os.path.samefile(old / chunk, new / chunk)
    table = Path("round-1/vision/metrics.csv")  # a table is appended to in place
    assert not os.path.samefile(old / table, new / table)

    assert command("train", "car-racing", "--run", scratch, *TINY, "--memory.steps", "4").code == 0
    learnt = [stage for stage in STAGES if stage != "evaluate"]
    assert digests(new, learnt) == digests(scratch, learnt)
    shutil.rmtree(old)
    assert digests(new) and litter(new) == []


def test_a_takeover_that_is_killed_anywhere_is_continued_by_the_same_command(finished: Path, tmp_path: Path) -> None:
    old = copy_of(finished, tmp_path / "old")
    before = snapshot(old)
    faults = [
        {"at": "os:replace", "match": "run.json", "do": "SIGKILL"},
        {"at": "os:link", "call": 3, "do": "SIGKILL"},
        {"at": "os:replace", "match": r"round-1/episodes$", "do": "SIGKILL"},
        {"at": "os:replace", "match": r"round-1/latents$", "after": True, "do": "SIGKILL"},
        {"at": "os:fsync", "match": r"\.controller\.tmp", "do": "SIGKILL"},
    ]
    for fault in faults:
        assert command("train", "--from", old, faults=[fault]).code == KILLED
    outcome = command("train", "--from", old)
    assert outcome.code == 0 and outcome.err.count("taken over") == 2, outcome.err
    new = tmp_path / "old-2"
    assert digests(new) == digests(old) and litter(new) == [] and snapshot(old) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "old-2"]
    assert "memory: already done" in command("train", "--from", old).err
    other = command("train", "--from", old, "--evaluate.episodes", "1")
    assert other.code == 0 and (tmp_path / "old-3" / "summary.json").exists(), other.err


def test_of_an_unfinished_run_what_is_finished_is_taken_over_while_another_process_continues_it(
    finished: Path, tmp_path: Path
) -> None:
    old, new = copy_of(finished, tmp_path / "old", until="vision"), tmp_path / "new"
    stopping = {"at": "worldmodels.vision.conv_vae:vae_loss", "call": 3, "do": "SIGSTOP"}
    writer = Launched("train", "car-racing", "--run", old, faults=[stopping])
    try:
        writer.wait_until_stopped()
        before = times(old)
        outcome = command("train", "--from", old, "--run", new)
        assert outcome.code == 0, outcome.err
        assert f"collect: taken over from {old}" in outcome.err
        assert f"vision: not taken over, because {old} has not finished it" in outcome.err
        assert times(old) == before
    finally:
        os.killpg(writer.pid, signal.SIGCONT)
        assert writer.finish().code == 0
    learnt = [stage for stage in STAGES if stage != "evaluate"]
    assert digests(new, learnt) == digests(old, learnt) == digests(finished, learnt)


def test_an_evolution_that_is_to_have_more_generations_is_taken_over_and_continued(
    finished: Path, tmp_path: Path
) -> None:
    more = ("--evolution.phases.real.generations", "5")
    old, new, whole = (tmp_path / name for name in ("old", "new", "whole"))
    for run in (old, whole):
        copy_of(finished, run)
    before = snapshot(old), (old / "round-1/controller/1-real/metrics.csv").read_text()
    outcome = command("train", "--from", old, "--run", new, *more)
    assert outcome.code == 0, outcome.err
    said = f"controller: taken over from {old} to be continued: --evolution.phases.real.generations is 5, not 3"
    assert said in outcome.err and "real: continuing at 3 of 5 generations" in outcome.err
    assert (snapshot(old), (old / "round-1/controller/1-real/metrics.csv").read_text()) == before
    assert command("train", "--run", whole, *more).code == 0
    assert digests(new, ["controller"]) == digests(whole, ["controller"])


def test_rounds_and_dream_models_are_taken_over_too(finished: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    words = (*TINY, "--rounds", "2", "--memory.dream-models", "1", "--phases", "dream")
    assert command("train", "car-racing", "--run", old, *words).code == 0
    outcome = command("train", "--from", old, "--run", new, "--evaluate.episodes", "3")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("taken over") == 2 * 6, "five stages of two rounds, and the dream model of each"
    assert "memory 2, dream model 1: taken over" in outcome.err
    assert "evaluate 2: done again, because --evaluate.episodes is 3, not 2" in outcome.err


def test_what_is_damaged_in_the_other_run_is_done_again(finished: Path, tmp_path: Path) -> None:
    old, new = copy_of(finished, tmp_path / "old"), tmp_path / "new"
    flip(old / "round-1" / "vision" / "vision.safetensors")
    outcome = command("train", "--from", old, "--run", new)
    assert outcome.code == 0, outcome.err
    assert "vision: done again, because its files in" in outcome.err
    # What is made again is the same, so that all that follows can be taken over.
    assert outcome.err.count("taken over") == 5 and digests(new) == digests(finished)


@pytest.mark.parametrize("case", ["no run", "another task", "the same folder", "a new run with other settings"])
def test_runs_that_cannot_be_taken_over_are_refused_in_one_line(
    case: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    old = copy_of(finished, tmp_path / "old")
    arguments, words = {
        "no run": (["--from", tmp_path / "nothing"], ["is not a run", "--from"]),
        "another task": (["take-cover", "--from", old], ["is a run of task car-racing, not take-cover"]),
        "the same folder": (["--from", old, "--run", old], ["another folder", "choose another --run"]),
        "a new run with other settings": (
            ["--from", old, "--run", copy_of(finished, tmp_path / "new"), "--seed", "5"],
            ["was made with --seed 1, not 5", "worldmodels train --from"],
        ),
    }[case]
    before = snapshot(tmp_path)
    refused(call(capsys, "train", *arguments), *words)
    assert snapshot(tmp_path) == before


def test_a_refused_change_names_every_setting_and_the_commands_that_go_on(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "a run")
    changes = ("--seed", "2", "--memory.steps", "6", "--controller.inputs", "z", "h")
    line = refused(call(capsys, "train", "--run", run, *changes, "--controller.inputs", "z"))
    assert "--seed 1, not 2 and --memory.steps 5, not 6 and --controller.inputs z h, not z" in line
    assert f"to continue it: worldmodels train --run '{run}';" in line
    assert line.endswith(f"worldmodels train --from '{run}' --seed 2 --memory.steps 6 --controller.inputs z")


def test_a_run_alone_is_continued_with_its_own_settings(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    run = copy_of(finished, tmp_path / "run")
    outcome = call(capsys, "train", "--run", run)
    assert outcome.code == 0 and outcome.err.count("already done") == len(STAGES)


def test_what_is_taken_over_stays_when_the_old_run_goes_whatever_the_file_system_can_do(
    finished: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Episodes that were moved to another disk and linked, and a disk that knows no hard links."""
    old, elsewhere = copy_of(finished, tmp_path / "old"), tmp_path / "elsewhere"
    (old / "round-1" / "episodes").rename(elsewhere)
    (old / "round-1" / "episodes").symlink_to(elsewhere)

    def refuse(*_: object) -> None:
        raise OSError("not on this disk")

    for name in ("linked", "copied"):
        outcome = call(capsys, "train", "--from", old, "--run", tmp_path / name)
        assert outcome.code == 0 and outcome.err.count("taken over from") == len(STAGES), outcome.err
        monkeypatch.setattr(os, "link", refuse)
    shutil.rmtree(old)
    shutil.rmtree(elsewhere)
    for name in ("linked", "copied"):
        assert digests(tmp_path / name) == digests(finished)
        assert not [path for path in (tmp_path / name).rglob("*") if path.is_symlink()]
