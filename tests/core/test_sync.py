"""Copies of folders in buckets: complete or invisible, verified, continued, and one process at a time."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buckets import Server, environment, s3, wait_for
from cases import call, refused
from worldmodels.core.errors import UserError
from worldmodels.core.files import json_bytes
from worldmodels.core.storage.lease import LEASE, Lease
from worldmodels.core.storage.manifest import MANIFEST, Entry, manifest_bytes, manifest_of, parsed
from worldmodels.core.storage.place import Place
from worldmodels.core.storage.sync import sync
from worldmodels.core.storage.transfer import fetch

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
NAMES = ("run.json", "round-1/episodes/shard-00000.zarr/frames/c/0", "round-1/episodes/done.json", "empty")


@pytest.fixture
def server(monkeypatch: Patch, tmp_path: Path) -> Iterator[Server]:
    with s3(monkeypatch, tmp_path / "cache") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files in folders, an empty one, and what is not to be copied."""
    folder = tmp_path / "source"
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else os.urandom(1000 + number))
    (folder / "run.json").write_text(json.dumps({"task": "car-racing", "seed": 1}))
    (folder / "lock").write_text("1")
    (folder / ".hidden.tmp").write_text("half")
    (folder / "link").symlink_to(folder / "run.json")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wanted(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


@pytest.fixture(params=["s3://bucket/some/run", "memory://some/run"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place in a bucket of the server, and one in memory."""
    if request.param.startswith("s3"):
        request.getfixturevalue("server")
        return str(request.param)
    return f"memory://{tmp_path.name}/run"


def test_a_folder_comes_back_from_a_bucket_as_it_was(folder: Path, url: str, tmp_path: Path) -> None:
    up = sync(folder, url)
    assert (up.files, up.copied) == (4, 4) and set(Place(url).sizes()) == {*NAMES, MANIFEST}
    down = sync(url, tmp_path / "back")
    assert (down.files, down.copied) == (4, 4) and contents(tmp_path / "back") == wanted(folder)
    assert sync(folder, url).copied == sync(url, tmp_path / "back").copied == 0
    assert sorted(path.name for path in tmp_path.iterdir() if "sync" in path.name) == []


def test_links_are_not_copied_without_a_word(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    sync(folder, tmp_path / "copy")
    assert f"{folder} holds links (1), which are not copied" in capsys.readouterr().err
    sync(tmp_path / "copy", tmp_path / "again")
    assert "links" not in capsys.readouterr().err


def test_only_what_differs_is_copied_and_what_else_is_there_stays(folder: Path, url: str, tmp_path: Path) -> None:
    sync(folder, url)
    sync(url, tmp_path / "back")
    (folder / NAMES[1]).write_bytes(b"another")
    (tmp_path / "back" / "mine").write_text("stays")
    Place(url).remove(NAMES[2])  # by somebody else
    assert sync(folder, url).copied == 2 and sync(url, tmp_path / "back").copied == 1
    assert contents(tmp_path / "back") == wanted(folder) | {"mine": b"stays"}


def test_a_file_that_others_may_be_reading_is_replaced_by_a_whole_one_or_not_at_all(tmp_path: Path) -> None:
    place, target = Place(f"memory://{tmp_path.name}/run"), tmp_path / "file"
    target.write_bytes(b"older")
    place.write("file", b"newer")
    before = os.stat(target).st_ino
    with pytest.raises(UserError, match="its checksum is not that of its manifest"):
        fetch(place, "file", Entry(5, "0" * 64), target)
    with open(target, "rb") as reader:
        fetch(place, "file", Entry(5, hashlib.sha256(b"newer").hexdigest()), target)
        assert reader.read() == b"older" and target.read_bytes() == b"newer" and os.stat(target).st_ino != before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_copy_from_place_to_place_and_between_folders(folder: Path, tmp_path: Path) -> None:
    first, second = f"memory://{tmp_path.name}/first", f"memory://{tmp_path.name}/second"
    sync(folder, first)
    sync(first, second)
    sync(second, f"file://{tmp_path / 'there'}")
    sync(tmp_path / "there", tmp_path / "again")
    assert contents(tmp_path / "again") == wanted(folder)


def test_a_file_that_is_damaged_in_the_bucket_is_refused_and_repaired(folder: Path, url: str, tmp_path: Path) -> None:
    sync(folder, url)
    damaged = bytearray((folder / NAMES[1]).read_bytes())
    damaged[100] ^= 1
    Place(url).write(NAMES[1], bytes(damaged))
    with pytest.raises(UserError, match=r"frames/c/0 is damaged or was replaced.*--verify"):
        sync(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert sync(folder, url).copied == 0 and sync(folder, url, verify=True).copied == 1
    sync(url, tmp_path / "back")
    assert contents(tmp_path / "back") == wanted(folder)


def test_a_file_that_is_longer_or_missing_in_the_bucket_is_refused(folder: Path, url: str, tmp_path: Path) -> None:
    sync(folder, url)
    Place(url).write("empty", b"not empty")
    Place(url).write(NAMES[1], (folder / NAMES[1]).read_bytes()[:500])
    with pytest.raises(UserError, match=r"is damaged or was replaced"):
        sync(url, tmp_path / "back")
    Place(url).remove(NAMES[1])
    with pytest.raises(UserError, match=r"there is no .*frames/c/0"):
        sync(url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"../outside": [3, "0" * 64]}, "leaves its folder"),
        ({"a/../../b": [3, "0" * 64]}, "leaves its folder"),
        ({"/etc/passwd": [3, "0" * 64]}, "is not relative"),
        ({"C:\\x": [3, "0" * 64]}, "is not relative"),
        ({".hidden": [3, "0" * 64]}, "temporary"),
        ({"a/lock": [3, "0" * 64]}, "temporary"),
        ({"a\nb": [3, "0" * 64]}, "no file may be called"),
        ({"a" * 600: [3, "0" * 64]}, "no file may be called"),
        ({"a": [3, "0" * 64], "a/b": [3, "0" * 64]}, "as a file and as a folder"),
        ({"a": [-1, "0" * 64]}, "no size and SHA-256"),
        ({"a": [True, "0" * 64]}, "no size and SHA-256"),
        ({"a": [1 << 50, "0" * 64]}, "no size and SHA-256"),
        ({"a": [3, "0" * 63]}, "no size and SHA-256"),
        ({"a": "text"}, "no size and SHA-256"),
        ({str(number): [3, "0" * 64] for number in range(400_001)}, "names 400,001 files"),
        ([], "not a manifest"),
    ],
)
def test_a_manifest_that_names_what_it_must_not_is_refused(content: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parsed(json_bytes({"format": 1, "files": content}, checksum=True), "manifest")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"format": 1, "files": {}}', b"\xff" * 9, b'{"a":' * 100_000 + b"1"]
)
def test_a_damaged_manifest_is_refused(data: bytes, tmp_path: Path) -> None:
    place = Place(f"memory://{tmp_path.name}/run")
    place.write(MANIFEST, data)
    with pytest.raises(UserError, match=r"manifest.json is (damaged|not a manifest)"):
        sync(place.url, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    place = Place(f"memory://{tmp_path.name}/run")
    place.write(MANIFEST, b" " * ((64 << 20) + 1))
    with pytest.raises(UserError, match="too large: more than 67,108,864 bytes"):
        manifest_of(place)


def test_a_manifest_is_written_as_it_is_read() -> None:
    entries = {"a/b": Entry(3, "ab" * 32), "c": Entry(0, "0" * 64)}
    assert parsed(manifest_bytes(entries), "m") == entries


def test_another_run_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/run"
    sync(folder, url)
    (folder / "run.json").write_text(json.dumps({"task": "car-racing", "seed": 2}))
    with pytest.raises(UserError, match=r"holds another run \(car-racing, seed 1\)"):
        sync(folder, url)
    sync(folder, tmp_path / "copy")
    with pytest.raises(UserError, match=r"holds another run \(car-racing, seed 2\)"):
        sync(url, tmp_path / "copy")


def test_a_file_that_goes_or_changes_while_it_is_copied_is_named(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Place.upload

    def meddled(change: Callable[[Path], object]) -> Callable[[Place, Path, str], None]:
        def uploading(self: Place, source: Path, name: str) -> None:
            if name == NAMES[1]:
                change(source)
            upload(self, source, name)

        return uploading

    for change, words in ((Path.unlink, "has gone"), (lambda path: path.write_bytes(b"newer"), "has changed")):
        monkeypatch.setattr(Place, "upload", meddled(change))
        with pytest.raises(UserError, match=rf"{folder}/.*frames/c/0 {words} while it was copied"):
            sync(folder, url)
        (folder / NAMES[1]).write_bytes(b"older")
    assert manifest_of(Place(url)) is None


def test_a_link_in_the_place_of_the_hidden_folder_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".copy.sync").symlink_to(tmp_path / "elsewhere")
    sync(folder, tmp_path / "copy")
    assert contents(tmp_path / "copy") == wanted(folder) and not any((tmp_path / "elsewhere").iterdir())


def test_two_processes_do_not_copy_to_one_place(folder: Path, url: str, tmp_path: Path) -> None:
    with Lease.taken(Place(url)), pytest.raises(UserError, match=rf"in use by process {os.getpid()} on"):
        sync(folder, url)
    assert sync(folder, url).copied == 4


def test_the_lease_of_a_process_that_has_ended_is_taken_over(folder: Path, tmp_path: Path) -> None:
    place = Place(f"memory://{tmp_path.name}/run")
    with Lease.taken(place):
        about = json.loads(place.read(LEASE, 4096))
    place.write(LEASE, json.dumps(about | {"start": "0"}).encode())  # the number is that of another process now
    assert sync(folder, place.url).copied == 4
    elsewhere = about | {"host": "another", "renewed": about["renewed"] - 121}
    place.write(LEASE, json.dumps(elsewhere).encode())
    assert sync(folder, place.url).copied == 0
    place.write(LEASE, json.dumps(about | {"host": "another"}).encode())
    with pytest.raises(UserError, match=r"in use by process .* on another"):
        sync(folder, place.url)


def test_a_process_that_was_asleep_looks_whether_it_still_has_the_lease_before_it_writes(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    place = Place(f"memory://{tmp_path.name}/run")
    with Lease.taken(place) as lease:
        about = json.loads(place.read(LEASE, 4096))
        place.write(LEASE, json.dumps(about | {"id": "another", "host": "elsewhere"}).encode())
        lease.check()
        monkeypatch.setattr("worldmodels.core.storage.lease._STALE_SECONDS", -1.0)  # all that time has passed
        with pytest.raises(UserError, match=r"was taken over by process \d+ on elsewhere"):
            lease.check()
    assert json.loads(place.read(LEASE, 4096))["host"] == "elsewhere", "it stays with the other one"


COPY = "import sys; from worldmodels.cli.main import main; sys.exit(main(['sync', *sys.argv[1:]]))"


def started(*arguments: str | Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COPY, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> bool:
    """False, or a failure with what the process said, so that nobody waits for one that has ended."""
    if process.poll() is not None:
        pytest.fail(f"it ended: {process.communicate()}")
    return False


def test_a_killed_copy_is_invisible_and_the_same_command_completes_it(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    for number in range(300):
        (folder / f"{number:03d}").write_bytes(os.urandom(20_000))
    process = started(folder, "s3://bucket/run")
    wait_for(lambda: len(server.files.find("bucket/run")) > 20 or ended(process))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert manifest_of(Place("s3://bucket/run")) is None
    assert sync(folder, "s3://bucket/run").files == 304
    process = started("s3://bucket/run", tmp_path / "back")
    wait_for(lambda: len(list(tmp_path.glob(".back.sync/**/*"))) > 20 or ended(process))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "back").exists()
    there = len([path for path in tmp_path.glob(".back.sync/*") if path.stat().st_size == 20_000])
    assert sync("s3://bucket/run", tmp_path / "back").copied <= 304 - there + 8
    names = set(contents(folder)) - {"lock", ".hidden.tmp", "link"}
    assert contents(tmp_path / "back") == {name: contents(folder)[name] for name in names}
    assert not list(tmp_path.glob(".back*"))


def test_a_bucket_that_goes_away_is_said_in_a_line_and_what_arrived_stays(
    server: Server, folder: Path, capsys: Capture
) -> None:
    for number in range(40):
        (folder / f"{number:02d}").write_bytes(os.urandom(5_000))
    uploads, upload = [0], Place.upload

    def failing(self: Place, source: Path, name: str) -> None:
        uploads[0] += 1
        if uploads[0] == 20:
            server.away()
        upload(self, source, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "upload", failing)
        outcome = call(capsys, "sync", folder, "s3://bucket/run")
    server.back()
    refused(outcome, "cannot reach s3://bucket/run", "the same command goes on")
    assert manifest_of(Place("s3://bucket/run")) is None
    assert sync(folder, "s3://bucket/run").files == 44 and len(manifest_of(Place("s3://bucket/run")) or {}) == 44


def test_what_is_wrong_with_a_place_is_said_in_a_line(
    server: Server, folder: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    refused(call(capsys, "sync", folder, "s3://no-such-bucket/run"), "there is no bucket no-such-bucket")
    refused(call(capsys, "sync", "s3://bucket/nothing", "copy"), "holds nothing that worldmodels has copied there")
    refused(call(capsys, "sync", folder, "ftp://somewhere/run"), "s3://, ", "got 'ftp://somewhere/run'")
    refused(call(capsys, "sync", folder, "https://127.0.0.1:1/run"), "nothing can be written", "only read")
    refused(call(capsys, "sync", folder / "nothing", "s3://bucket/run"), "there is no folder")
    refused(call(capsys, "sync", folder), "expected what to copy and where")
    refused(call(capsys, "sync", folder, "gs://bucket/run"), "need the package gcsfs: pip install gcsfs")


def test_without_credentials_or_a_server_a_line_says_so(folder: Path, capsys: Capture, monkeypatch: Patch) -> None:
    from worldmodels.core.storage import place

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv(
        "WORLDMODELS_STORAGE_OPTIONS", '{"endpoint_url": "http://127.0.0.1:9", "skip_instance_cache": 1}'
    )
    place._filesystem.cache_clear()
    refused(call(capsys, "sync", folder, "s3://bucket/run"), "no credentials were found", "AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("WORLDMODELS_STORAGE_OPTIONS", '{"key": "me", "secret": "hush"')
    outcome = call(capsys, "sync", folder, "s3://bucket/run")
    refused(outcome, "expected JSON", "WORLDMODELS_STORAGE_OPTIONS")
    assert "hush" not in outcome.err
    place._filesystem.cache_clear()
