"""Runs in buckets: finished parts are there at once, frames come through a bounded cache, and any machine continues."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import faults
from buckets import Server, environment, s3
from cases import TINY, call, digests, flip, refused
from worldmodels.core.errors import UserError
from worldmodels.core.storage.blobs import Blobs
from worldmodels.core.storage.lease import LEASE, Lease
from worldmodels.core.storage.manifest import MANIFEST, Entry, entry_of, manifest_of
from worldmodels.core.storage.mirror import Mirror
from worldmodels.core.storage.place import Place
from worldmodels.core.storage.sync import sync
from worldmodels.run.listing import runs
from worldmodels.run.reader import RunReader

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]
URL = "s3://bucket/runs/run"
_PROCESS = "import json, sys, faults; faults.main(json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), 0)"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    with s3(monkeypatch, tmp_path / "cache") as running:
        yield running


@pytest.fixture
def stored(server: Server, finished: Path) -> Path:
    """The tiny run, copied into the bucket."""
    sync(finished, URL)
    return finished


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache" / "blobs").glob("??/*") if path.is_file()]


def frames_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("**/*.zarr/frames/c/**/*") if path.is_file()]


def test_a_run_in_a_bucket_is_trained_to_the_same_bits_and_keeps_its_frames_there(
    server: Server, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    outcome = call(capsys, "collect", "car-racing", "--run", URL, *TINY)
    assert outcome.code == 0, outcome.err
    folder = next((tmp_path / "cache" / "mirrors").glob("*/local/run"))
    assert not frames_in(folder) and cached(tmp_path)
    shutil.rmtree(tmp_path / "cache")  # as on another machine
    for verb in ("vision", "encode"):
        outcome = call(capsys, verb, "car-racing", "--run", URL)
        assert outcome.code == 0, outcome.err
    assert not frames_in(folder) and len(cached(tmp_path)) == len(frames_in(finished))
    assert not server.files.exists(f"bucket/runs/run/{LEASE}")
    sync(URL, tmp_path / "copy")
    stages = ["collect", "vision", "encode"]
    assert digests(tmp_path / "copy", stages) == digests(finished, stages)
    text = server.files.cat_file("bucket/runs/run/run.json").decode()
    assert "secret" not in text and server.url not in text


def test_a_stopped_run_is_continued_from_its_bucket_on_another_machine(
    server: Server, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The process is killed after the first shard; what its machine had is lost."""
    killed = [{"at": "worldmodels.core.metrics:MetricsLog.log", "call": 1, "do": "SIGKILL"}]
    words = json.dumps(["collect", "car-racing", "--run", URL, *TINY])
    # Not from the server of processes, which has another environment.
    process = [sys.executable, "-c", _PROCESS, words, str(tmp_path / "stderr"), json.dumps(killed)]
    assert subprocess.run(process, env=environment() | {"PYTHONPATH": os.pathsep.join(sys.path)}).returncode < 0
    there = manifest_of(Place(URL)) or {}
    assert "run.json" in there and any(name.startswith("round-1/episodes/shard-00000.zarr/") for name in there)
    assert not any("shard-00001" in name or name.endswith("done.json") for name in there)
    monkeypatch.setenv("WORLDMODELS_CACHE", str(tmp_path / "elsewhere"))
    outcome = call(capsys, "collect", "car-racing", "--run", URL, *TINY)
    assert outcome.code == 0 and "taking over from process" in outcome.err, outcome.err
    sync(URL, tmp_path / "copy")
    assert digests(tmp_path / "copy", ["collect"]) == digests(finished, ["collect"])


def test_when_the_bucket_goes_away_a_line_says_so_and_the_same_command_goes_on(
    server: Server, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    heal = faults.install("worldmodels.data.episodes:EpisodeStore.write", "SIGCONT", call=2)
    original = faults._strike
    faults._strike = lambda _: server.away()
    try:
        refused(call(capsys, "collect", "car-racing", "--run", URL, *TINY), "cannot reach", "the same command goes on")
    finally:
        faults._strike = original
        heal()
        server.back()
    outcome = call(capsys, "collect", "car-racing", "--run", URL)
    assert outcome.code == 0, outcome.err
    sync(URL, tmp_path / "copy")
    assert digests(tmp_path / "copy", ["collect"]) == digests(finished, ["collect"])


def test_a_run_that_another_process_works_on_is_refused(stored: Path, capsys: Capture) -> None:
    with Lease.taken(Place(URL)):
        refused(call(capsys, "train", "car-racing", "--run", URL), f"{URL} is in use by process {os.getpid()}")
        (status,) = runs("s3://bucket/runs")
        assert status.state == "running"


def test_finished_runs_are_listed_read_and_scored_from_a_bucket(stored: Path, tmp_path: Path, capsys: Capture) -> None:
    (status,) = runs("s3://bucket/runs")
    assert (status.name, status.state, status.stages_finished) == ("run", "finished", 6)
    assert status.changed == 0.0, "when it was copied here says nothing of when it was worked on"
    assert [one.name for one in runs("s3://bucket")] == ["runs/run"] and [one.name for one in runs(URL)] == ["."]
    assert call(capsys, "runs", "s3://bucket/runs").code == 0
    here, there = RunReader(stored), RunReader(URL)
    assert there.evaluation() == here.evaluation() and there.episode_count == here.episode_count
    assert (there.episode(3).frames == here.episode(3).frames).all()
    assert there.agent().digest() == here.agent().digest()
    options = ["--episodes", "1", "--steps", "4", "--backend", "envpool", "--json", tmp_path / "scores.json"]
    outcome = call(capsys, "evaluate", "--agent", URL, *options)
    assert outcome.code == 0 and json.loads((tmp_path / "scores.json").read_text())["agent"] == URL, outcome.err


def test_a_run_whose_files_cannot_be_read_is_left_out_of_the_list_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("WORLDMODELS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    place = Place(f"memory://{tmp_path.name}")
    for name in ("one", "three", "two"):
        sync(tmp_path / "run", f"{place.url}/{name}")
    place.write("two/run.json", b"[]")
    place.write(f"three/{MANIFEST}", b"{")
    assert [run.name for run in runs(place.url)] == ["one"]
    said = capsys.readouterr().err
    assert "/two is left out: " in said and "/three is left out: " in said


def test_an_agent_that_was_copied_by_other_means_can_be_used(
    server: Server, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    from worldmodels.agent import load_agent

    server.files.put_file(str(finished / "agent" / "agent.safetensors"), "bucket/mine/agent.safetensors")
    digest = load_agent(finished).digest()
    assert (
        load_agent("s3://bucket/mine").digest() == load_agent("s3://bucket/mine/agent.safetensors").digest() == digest
    )
    with pytest.raises(UserError, match="holds no agent"):
        load_agent("s3://bucket/nothing")


def test_a_new_run_takes_over_the_stages_of_one_in_a_bucket(stored: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "longer"
    outcome = call(capsys, "train", "--from", URL, "--memory.steps", "6", "--run", target)
    assert outcome.code == 0 and "vision: taken over" in outcome.err, outcome.err
    assert digests(target, ["collect", "vision", "encode"]) == digests(stored, ["collect", "vision", "encode"])


def test_what_was_finished_elsewhere_is_taken_and_what_was_finished_here_is_written(
    stored: Path, tmp_path: Path
) -> None:
    with Mirror.working(URL) as mirror:
        (mirror.folder / "note.json").write_text("{}")
    assert "note.json" in (manifest_of(Place(URL)) or {})
    (mirror.folder / "here.json").write_text("[1]")  # a process that was killed before it could write it there
    shutil.copytree(stored, tmp_path / "other", dirs_exist_ok=True)
    (tmp_path / "other" / "note.json").write_text("[2]")
    sync(tmp_path / "other", URL)
    with Mirror.working(URL) as mirror:
        assert (mirror.folder / "note.json").read_text() == "[2]"
        (mirror.folder / "summary.json").unlink()
    there = manifest_of(Place(URL)) or {}
    assert "here.json" in there and "summary.json" not in there
    assert frames_in(stored) and all(frame.relative_to(stored).as_posix() in there for frame in frames_in(stored))


def test_frames_that_are_damaged_on_the_way_or_in_the_cache_are_not_used(stored: Path, tmp_path: Path) -> None:
    reader = RunReader(URL)
    first = reader.episode(0).frames
    for path in cached(tmp_path):
        flip(path)
    reader = RunReader(URL)  # whose cache has verified nothing yet
    assert (reader.episode(0).frames == first).all()
    name = next(name for name in manifest_of(Place(URL)) or {} if "/frames/c/" in name)
    Place(URL).write(name, b"something else")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="checksum is not that of its manifest"):
        list(RunReader(URL).episodes())


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs", 2500)


def put(blobs: Blobs, number: int, size: int = 1000) -> bool:
    """Use a file; returns whether it had to be fetched."""
    content, fetched = bytes([number]) * size, []
    import hashlib

    def fetch(target: Path) -> None:
        fetched.append(target)
        target.write_bytes(content)

    with blobs.open(Entry(size, hashlib.sha256(content).hexdigest()), fetch) as file:
        assert file.read() == content
    return bool(fetched)


def test_the_cache_keeps_what_was_used_last_within_its_bound(blobs: Blobs, tmp_path: Path) -> None:
    assert put(blobs, 1) and put(blobs, 2) and not put(blobs, 1)
    assert put(blobs, 3)  # 2 goes
    assert not put(blobs, 1) and put(blobs, 2)
    assert sum(path.stat().st_size for path in (tmp_path / "blobs").glob("??/*")) <= 2500
    assert put(blobs, 4, size=5000)  # larger than the bound: alone
    assert len(list((tmp_path / "blobs").glob("??/*"))) == 1


def test_a_new_process_finds_the_cache_and_what_a_killed_one_left_goes_later(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(blobs, 1), put(blobs, 2)
    (half,) = [path for path in (tmp_path / "blobs").glob("??/*") if path.read_bytes()[0] == 1]
    half.write_bytes(half.read_bytes()[:500])
    litter = half.with_name(".half.999999999.tmp")
    litter.write_bytes(b"half")
    again = Blobs(tmp_path / "blobs", 2500)
    assert put(again, 1) and not put(again, 2) and litter.exists()
    monkeypatch.setattr("worldmodels.core.storage.blobs._LITTER_SECONDS", -1.0)
    assert not put(Blobs(tmp_path / "blobs", 2500), 2) and not litter.exists()


def test_the_cache_settings_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    monkeypatch.setenv("WORLDMODELS_CACHE", str(tmp_path))
    for value in ("many", "-1", "nan"):
        monkeypatch.setenv("WORLDMODELS_CACHE_GIB", value)
        refused(
            call(capsys, "train", "--run", "memory://a/b"), "positive number of GiB in WORLDMODELS_CACHE_GIB", value
        )


def test_the_manifest_of_a_run_that_is_worked_on_names_what_is_there(stored: Path) -> None:
    there = manifest_of(Place(URL)) or {}
    assert MANIFEST not in there and "lock" not in there
    assert there["run.json"] == entry_of(stored / "run.json")
