"""Opening a run: what is taken for one, what is cleaned up in it, and file systems on which it cannot be locked."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from cases import TINY, begin, call, copy_of, refused, snapshot
from worldmodels.core.files import read_json, write_json
from worldmodels.core.settings import to_json
from worldmodels.run.presets import preset
from worldmodels.run.run import Run

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]


def leave(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left behind")


def test_leftovers_are_swept_in_the_folders_of_stages_and_nowhere_else(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    with Run.open(run, preset("quick")):
        pass
    ours = [
        run / ".run.json.17.tmp",
        run / "agent" / ".agent.safetensors.17.tmp",
        run / "round-1" / ".random-policy.json.17.tmp",
        run / "round-12" / "memory-2" / ".metrics.csv.17.tmp",
        run / "round-1" / "controller-v-only" / "2-finetune" / ".evolution.safetensors.17.tmp",
        run / "round-1" / "episodes" / ".shard-00003.zarr.tmp" / "frames" / "chunk",
        run / "round-1" / "episodes" / "policy" / ".agent.safetensors.17.tmp",
    ]
    others = [
        run / "mine" / ".notes.17.tmp",
        run / "round-1" / "mine" / ".notes.17.tmp",
        run / "round-one" / "vision" / ".notes.17.tmp",
        run / "round-1" / "vision" / "tensorboard" / ".notes.17.tmp",
        outside / ".notes.17.tmp",
        outside / "1-real" / ".notes.17.tmp",
    ]
    leave(*ours, *others)
    (run / "round-1" / "latents").symlink_to(outside)
    shutil.copytree(outside, run / "round-1" / "controller-dream-only")
    (run / "round-1" / "controller-dream-only" / "2-real").symlink_to(outside)
    with Run.open(run, preset("quick")):
        pass
    assert not [path for path in ours if path.exists()]
    assert all(path.exists() for path in others)


def test_a_folder_that_is_no_run_is_not_swept(tmp_path: Path) -> None:
    leave(tmp_path / "round" / ".notes.17.tmp", tmp_path / ".notes.17.tmp", tmp_path / "agent" / ".notes.17.tmp")
    before = snapshot(tmp_path)
    with Run.open(tmp_path, preset("quick")):
        pass
    assert before.items() <= snapshot(tmp_path).items()


@pytest.mark.parametrize("verb", ["vision", "encode", "memory", "controller", "evaluate", "ablate"])
def test_only_train_and_collect_begin_a_run(verb: str, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "typo"
    refused(
        call(capsys, verb, "car-racing", "--run", run, *TINY),
        f"{run} is not a run: it has no run.json",
        f"worldmodels train car-racing --run {run}",
    )
    assert not run.exists()


def test_a_stage_whose_input_is_missing_says_which_command_makes_it(tmp_path: Path, capsys: Capture) -> None:
    begin(run := tmp_path / "run")
    refused(call(capsys, "memory", "car-racing", "--run", run), "encode stage", "not finished", "worldmodels encode")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_in_one_line(
    number: int, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    run = tmp_path / "run"
    outcome = call(capsys, "collect", "car-racing", "--run", run, *TINY)
    refused(outcome, f"cannot lock {run / 'lock'}: {os.strerror(number)}", "use another --run")


def test_a_pipe_in_the_place_of_the_lock_is_refused(tmp_path: Path, capsys: Capture) -> None:
    os.mkfifo(tmp_path / "lock")
    outcome = call(capsys, "collect", "car-racing", "--run", tmp_path, *TINY)
    refused(outcome, f"{tmp_path / 'lock'} is not a regular file")


@pytest.mark.parametrize("name", ["run.json", "round-1/vision/done.json", "round-1/vision/vision.safetensors"])
@pytest.mark.parametrize("target", ["pipe", "/dev/zero"])
def test_an_artefact_that_is_a_pipe_or_a_device_is_refused_and_not_waited_for(
    name: str, target: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "run", until="memory")
    shutil.rmtree(run / "round-1" / "latents")
    if target == "pipe":
        os.mkfifo(tmp_path / "pipe")
        target = str(tmp_path / "pipe")
    (run / name).unlink()
    (run / name).symlink_to(target)
    refused(call(capsys, "encode", "car-racing", "--run", run), str(run / name))


def test_a_chunk_of_episodes_that_is_a_pipe_is_refused_and_not_waited_for(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "run", until="vision")
    shard = run / "round-1" / "episodes" / "shard-00001.zarr"
    (shard / "rewards" / "c" / "0").unlink()
    os.mkfifo(shard / "rewards" / "c" / "0")
    refused(call(capsys, "vision", "car-racing", "--run", run), str(shard))


def test_a_run_of_more_rounds_than_anybody_could_train_is_refused(tmp_path: Path, capsys: Capture) -> None:
    refused(call(capsys, "train", "--rounds", 10**18, "--run", tmp_path / "run"), "--rounds must be", "at most 1000")
    content = to_json(preset("quick")) | {"layout": 2, "rounds": 10**18}
    write_json(tmp_path / "run.json", content, checksum=True)
    refused(call(capsys, "probe", tmp_path), "--rounds must be")


WRONG_RECORDS = {
    "no digest": {"digest": None},
    "metrics that are words": {"metrics": {"episodes": "many"}},
    "metrics that are a list": {"metrics": [1]},
    "seconds that are words": {"seconds": "a while"},
    "seconds beyond all numbers": {"seconds": 10**400},
    "files that are a list": {"files": []},
}


@pytest.mark.parametrize("case", WRONG_RECORDS)
@pytest.mark.parametrize("verb", ["train", "vision"])
def test_the_record_of_a_stage_with_wrong_content_is_refused_in_one_line(
    verb: str, case: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "run", until="vision")
    path = run / "round-1" / "episodes" / "done.json"
    write_json(path, read_json(path, checksum=True) | WRONG_RECORDS[case], checksum=True)
    refused(call(capsys, verb, "car-racing", "--run", run), str(path), "lacks the record of its stage", "delete")


@pytest.mark.parametrize("seconds", ["NaN", "-5", "Infinity", '"long"', "1" + "0" * 400])
def test_a_wrong_note_of_the_time_does_not_stop_a_stage(
    seconds: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "run", until="memory")
    (run / "round-1" / "memory").mkdir()
    (run / "round-1" / "memory" / "elapsed.json").write_text(f'{{"seconds": {seconds}}}')
    assert call(capsys, "memory", "car-racing", "--run", run).code == 0
