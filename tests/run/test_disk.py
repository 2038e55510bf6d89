"""Disks that are full, and places that are no directories: one clear line, and nothing lost that was there before."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import faults
from cases import TINY, begin, call, command, copy_of, digests, refused, snapshot

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to break."""
    return copy_of(finished, tmp_path / "run")


FULL = {
    "collect": ["shard-00001.zarr.tmp", "episodes/.done.json"],
    "vision": ["vision/.begun.json", "vision/.vision.safetensors", "vision/.checkpoint.safetensors"],
    "encode": ["latents/.latents-00001.safetensors"],
    "memory": ["memory/.memory.safetensors", "memory/.metrics.csv"],
    "controller": [
        "controller/1-real/.evolution.safetensors",
        "controller/2-finetune/.metrics.csv",
        "controller/2-finetune/.evolution.safetensors",
        "controller/.agent.safetensors",
    ],
    "evaluate": ["evaluation/.partial.json", "evaluation/.evaluation.json"],
    "train": ["agent/.agent.safetensors", ".summary.json", ".curves.png"],
}


@pytest.mark.parametrize(("verb", "match"), [(verb, match) for verb, every in FULL.items() for match in every])
def test_a_full_disk_is_said_and_costs_nothing_that_was_there(
    verb: str, match: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "run", until="" if verb == "train" else verb)
    before = snapshot(run)
    heal = faults.install("os:fsync", "ENOSPC", match=match)
    try:
        outcome = call(capsys, verb, "car-racing", "--run", run)
    finally:
        heal()
    name = match.rpartition("/")[2].removeprefix(".").removesuffix(".tmp")
    refused(outcome, "could not write", name, "No space left on device", "run again")
    assert before.items() <= snapshot(run).items()
    assert not [path for path in run.rglob(".*.tmp")]


def test_after_a_full_disk_the_same_command_goes_on(finished: Path, tmp_path: Path) -> None:
    """Files larger than 200 kB cannot be written, then those larger than 4 MB: no checkpoint of V fits."""
    run = tmp_path / "run"
    outcome = command("collect", "car-racing", "--run", run, *TINY, file_limit=200_000)
    refused(outcome, "could not write", "shard-00000.zarr", "File too large")
    run = copy_of(finished, tmp_path / "other", until="vision")
    refused(command("vision", "car-racing", "--run", run, file_limit=4_000_000), "checkpoint.safetensors")
    outcome = command("vision", "car-racing", "--run", run)
    assert outcome.code == 0 and digests(run, ["vision"]) == digests(finished, ["vision"]), outcome.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_really_full_is_said(small_disk: Path, capsys: Capture) -> None:
    run = small_disk / "run"
    outcome = call(capsys, "collect", "car-racing", "--run", run, *TINY)
    refused(outcome, "could not write", str(run), "No space left on device")
    assert not list(run.rglob(".*.tmp"))


@pytest.mark.parametrize("name", ["", "round-1", "round-1/episodes"])
def test_a_file_where_a_folder_must_be_is_said(name: str, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    if name:  # a run that is begun, but has no stages
        begin(run)
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    refused(call(capsys, "collect", "car-racing", "--run", run, *TINY), str(path))
    assert path.read_text() == "in the way"


@pytest.mark.parametrize("name", ["lock", "run.json"])
def test_a_folder_where_a_file_must_be_is_said(name: str, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    (run / name).mkdir(parents=True)
    refused(call(capsys, "collect", "car-racing", "--run", run, *TINY), str(run))


def test_scores_that_cannot_be_written_are_said(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "scores.json"
    options = ["--policy", "random", "--episodes", "1", "--backend", "envpool", "--json", target]
    refused(call(capsys, "evaluate", "car-racing", *options), f"could not write {target.parent}")
