"""Files that are written whole or not at all, and files that are refused instead of read for ever."""

import os
from pathlib import Path

import pytest
import torch

from worldmodels.core import files
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, new_directory, read_json, save_tensors, sweep, write_bytes, write_json


def test_only_the_names_that_this_program_makes_are_swept_and_only_in_the_folder_itself(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    folder = tmp_path / "stage"
    (folder / "below").mkdir(parents=True)
    ours = [folder / ".done.json.1234.tmp", folder / ".shard-00000.zarr.tmp"]
    ours[0].write_text("half")
    (ours[1] / "frames").mkdir(parents=True)
    others = [folder / ".notes.tmp", folder / "x.1.tmp", folder / "below" / ".done.json.1.tmp", folder / ".my.12a.tmp"]
    for path in others:
        path.write_text("of the user")
    links = [folder / ".link.tmp", folder / ".link.77.tmp"]
    links[0].symlink_to(victim)
    links[1].symlink_to(victim / "deep")
    sweep(folder)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in [*others, *links]) and (victim / "deep").is_dir()


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(victim)
    write_bytes(tmp_path / "file", b"new")
    assert victim.read_text() == "precious" and (tmp_path / "file").read_bytes() == b"new"


def test_a_link_in_the_place_of_a_temporary_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").write_text("precious")
    (tmp_path / ".folder.tmp").symlink_to(tmp_path / "victim")
    with new_directory(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("new")
    assert os.listdir(tmp_path / "victim") == ["precious"] and os.listdir(tmp_path / "folder") == ["file"]


def test_a_folder_without_a_name_is_no_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"expected the name of a new folder, got '\.'"), new_directory(Path(".")):
        pytest.fail("there is nothing to fill")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "link to a device", "folder"])
def test_what_is_no_regular_file_is_refused_and_never_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "artefact"
    if kind == "folder":
        path.mkdir()
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        pipe = path if kind == "pipe" else tmp_path / "pipe"
        os.mkfifo(pipe)
        if pipe != path:
            path.symlink_to(pipe)
    for read in (read_json, load_tensors):
        with pytest.raises(UserError, match="artefact is not a regular file; expected a"):
            read(path)


def test_a_json_file_that_is_too_large_is_called_too_large_and_not_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "some.json", {"text": "x" * (3 << 20)})
    assert len(read_json(tmp_path / "some.json")["text"]) == 3 << 20
    monkeypatch.setattr(files, "LARGEST_JSON", 2 << 20)
    with pytest.raises(UserError, match="is too large: 3 MiB, more than the 2 MiB of the largest JSON file"):
        read_json(tmp_path / "some.json")


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"a": torch.arange(3)}, {"step": 1})
    tensors, meta = load_tensors(tmp_path / "a.safetensors")
    assert tensors["a"].tolist() == [0, 1, 2] and meta == {"step": 1}
    assert oct((tmp_path / "a.safetensors").stat().st_mode & 0o777) == oct(0o666 & ~_umask())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
