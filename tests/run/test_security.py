"""Files from strangers: whatever is offered as agent, run, checkpoint or episodes, nothing in it is ever executed."""

import ast
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from cases import ROOT, STAGES, call, copy_of, refused, snapshot
from worldmodels import evaluation
from worldmodels.agent import AGENT_FILE
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, read_json, write_json
from worldmodels.data.episodes import Shard
from worldmodels.rollouts import Rollouts

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]
Attack = Callable[[Path, "Trap"], None]


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A trap that is checked to snap, and after the test to be still set."""
    probe = tmp_path / "probe"
    pickle.loads(pickle.dumps(Trap(probe)))
    assert probe.exists(), "the trap itself does not work"
    trap = Trap(tmp_path / "executed")
    yield trap
    assert not trap.marker.exists(), "code from a file was executed"


def raw_pickle(path: Path, trap: Trap) -> None:
    path.write_bytes(pickle.dumps({"weights": trap}))


def torch_file(path: Path, trap: Trap) -> None:
    torch.save({"weights": trap}, path)


def old_torch_file(path: Path, trap: Trap) -> None:
    torch.save({"weights": trap}, path, _use_new_zipfile_serialization=False)


def numpy_objects(path: Path, trap: Trap) -> None:
    with open(path, "wb") as file:
        np.savez(file, weights=np.array([trap], dtype=object))


def numpy_object(path: Path, trap: Trap) -> None:
    with open(path, "wb") as file:
        np.save(file, np.array([trap], dtype=object), allow_pickle=True)


def pickle_behind_a_header(path: Path, trap: Trap) -> None:
    header = json.dumps({"__metadata__": {"meta": "{}", "digest": "0"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + pickle.dumps(trap))


def giant_header(path: Path, trap: Trap) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def sparse_giant_header(path: Path, trap: Trap) -> None:
    """A header of two gigabytes that takes no room on the disk."""
    path.write_bytes(struct.pack("<Q", 2 << 30) + b"{")
    os.truncate(path, (2 << 30) + 8)


def giant_tensor(path: Path, trap: Trap) -> None:
    shape = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    header = json.dumps({"controller": shape, "__metadata__": {"meta": "{}", "digest": "0"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def nested_header(path: Path, trap: Trap) -> None:
    header = b'{"__metadata__":' * 100_000
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def nested_lists(path: Path, trap: Trap) -> None:
    path.write_bytes(b"[" * 200_000 + b"]" * 200_000)


def nested_dictionaries(path: Path, trap: Trap) -> None:
    path.write_bytes(b'{"checksum":' * 100_000 + b"0" + b"}" * 100_000)


def giant_number(path: Path, trap: Trap) -> None:
    path.write_bytes(b'{"seed": ' + b"9" * 100_000 + b"}")


def not_a_number(path: Path, trap: Trap) -> None:
    path.write_bytes(b'{"checksum": "0", "seed": NaN}')


def no_text(path: Path, trap: Trap) -> None:
    path.write_bytes(b"\xff\xfe\x00\xd8" * 64)


def zip_bomb(path: Path, trap: Trap) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("weights.npy", b"\0" * (1 << 24))


ATTACKS: list[Attack] = [
    raw_pickle,
    torch_file,
    old_torch_file,
    numpy_objects,
    numpy_object,
    pickle_behind_a_header,
    giant_header,
    sparse_giant_header,
    giant_tensor,
    nested_header,
    nested_lists,
    nested_dictionaries,
    giant_number,
    not_a_number,
    no_text,
    zip_bomb,
]
every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)


@every_attack
@pytest.mark.parametrize("suffix", [".pt", ".npz", ".json", ".safetensors"])
def test_no_file_is_executed_as_an_agent(
    attack: Attack, suffix: str, trap: Trap, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / f"agent{suffix}"
    attack(path, trap)
    refused(call(capsys, "evaluate", "car-racing", "--episodes", "1", "--agent", path), str(path), "damaged")


@every_attack
def test_no_file_in_a_directory_is_executed_as_an_agent(
    attack: Attack, trap: Trap, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "run" / "agent").mkdir(parents=True)
    attack(tmp_path / "run" / "agent" / AGENT_FILE, trap)
    refused(
        call(capsys, "record", "car-racing", "--agent", tmp_path / "run", "--out", tmp_path / "film.gif"), "damaged"
    )


@every_attack
def test_no_file_is_executed_as_the_settings_of_a_run(
    attack: Attack, trap: Trap, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "run").mkdir()
    attack(tmp_path / "run" / "run.json", trap)
    refused(call(capsys, "train", "car-racing", "--run", tmp_path / "run"), "run.json", "damaged")


TRUSTED = {
    "checkpoint of V": ("vision", "checkpoint.safetensors"),
    "checkpoint of M": ("memory", "checkpoint.safetensors"),
    "first phase of evolution": ("controller", "1-real/evolution.safetensors"),
    "second phase of evolution": ("controller", "2-finetune/evolution.safetensors"),
    "scores so far": ("evaluate", "partial.json"),
    "note of a begun stage": ("vision", "begun.json"),
    "note of a finished stage": ("memory", "done.json"),
}


def played(count: int) -> Rollouts:
    """Episodes of one step."""
    return Rollouts(np.zeros(count), np.ones(count, np.int64), np.zeros(count, bool), np.zeros(count))


@every_attack
@pytest.mark.parametrize("part", TRUSTED)
def test_no_file_is_executed_as_a_part_of_a_run(
    part: str,
    attack: Attack,
    trap: Trap,
    finished: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage, name = TRUSTED[part]
    run = copy_of(finished, tmp_path / "run", until=stage)
    path = run / "round-1" / STAGES[stage] / name
    path.parent.mkdir(parents=True)
    if part.startswith("second"):
        shutil.copytree(finished / "round-1" / "controller" / "1-real", path.parents[1] / "1-real")
    attack(path, trap)
    monkeypatch.setattr(evaluation, "_play", lambda task, backend, policy, seeds, *_: played(len(seeds)))
    outcome = call(capsys, stage, "car-racing", "--run", run)
    if part == "scores so far":  # they can be measured again
        assert outcome.code == 0 and f"{path} is damaged and not used" in outcome.err
    else:
        refused(outcome, str(path), "damaged")


def pickled_array(shard: Path, trap: Trap) -> None:
    """zarr's second format knows pickle as a compressor."""
    group = zarr.open_group(shard, mode="w", zarr_format=2, attributes={"renderer": "envpool"})
    for name in ("frames", "lengths", "actions", "rewards", "terminated", "seeds"):
        group.create_array(name, shape=(1,), chunks=(1,), dtype="uint8")
        folder = shard / name
        meta = json.loads((folder / ".zarray").read_text())
        meta |= {"filters": None, "compressor": {"id": "pickle", "protocol": 2}}
        (folder / ".zarray").write_text(json.dumps(meta))
        (folder / "0").write_bytes(pickle.dumps(np.array([trap], dtype=object)))


def pickled_codec(shard: Path, trap: Trap) -> None:
    group = zarr.open_group(shard, mode="w", zarr_format=3, attributes={"renderer": "envpool"})
    for name in ("frames", "lengths", "actions", "rewards", "terminated", "seeds"):
        group.create_array(name, data=np.zeros(1, np.uint8), chunks=(1,))
        meta = json.loads((shard / name / "zarr.json").read_text())
        meta["codecs"] = [{"name": "numcodecs.pickle", "configuration": {"protocol": 2}}]
        (shard / name / "zarr.json").write_text(json.dumps(meta))
        for chunk in (shard / name / "c").rglob("*"):
            chunk.write_bytes(pickle.dumps(np.array([trap], dtype=object)))


@pytest.mark.parametrize("attack", [pickled_array, pickled_codec], ids=lambda one: one.__name__)
def test_no_pickle_is_loaded_from_episodes(
    attack: Attack, trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Even where the person has allowed pickles for other programs.
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    shard = tmp_path / "shard-00000.zarr"
    attack(shard, trap)
    with pytest.raises(UserError, match="damaged"):
        Shard(shard)


@pytest.mark.parametrize("attack", [raw_pickle, torch_file, numpy_objects, zip_bomb], ids=lambda one: one.__name__)
def test_no_file_of_a_shard_is_executed(
    attack: Attack, trap: Trap, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = copy_of(finished, tmp_path / "run", until="vision")
    shard = run / "round-1" / "episodes" / "shard-00001.zarr"
    attack(shard / "actions" / "c" / "0" / "0", trap)
    before = snapshot(run)
    refused(call(capsys, "vision", "car-racing", "--run", run), str(shard))
    assert before.items() <= snapshot(run).items()
    with pytest.raises(UserError, match="damaged"):
        Shard(shard)


@every_attack
def test_the_readers_themselves_refuse(attack: Attack, trap: Trap, tmp_path: Path) -> None:
    path = tmp_path / "file"
    attack(path, trap)
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
    with pytest.raises(UserError, match="damaged"):
        read_json(path, checksum=True)


STRANGE_SETTINGS: list[tuple[str, Any]] = [
    ("seed", "1; import os"),
    ("seed", True),
    ("vision", {"latent_size": "8"}),
    ("vision", {"latent_size": 8, "__class__": "os.system"}),
    ("vision", "os.system"),
    ("vision", ["os:system"]),
    ("vision", {"model": "os:system"}),
    ("controller", {"inputs": ["__import__('os')"]}),
    ("controller", {"inputs": 3}),
    ("evolution", {"strategy": "os:system"}),
    ("evolution", {"sequence": ["../../elsewhere"], "phases": {"../../elsewhere": {}}}),
    ("evolution", {"phases": ["real"]}),
    ("evolution", {"phases": {"real": "os.system"}}),
    ("evolution", {"sequence": [["real"]]}),
    ("evolution", {"sequence": [3]}),
    ("memory", {"steps": -1}),
    ("_target_", "os.system"),
]


@pytest.mark.parametrize(("name", "value"), STRANGE_SETTINGS, ids=str)
def test_settings_of_a_stranger_are_values_and_nothing_else(
    name: str, value: Any, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    content = json.loads((finished / "run.json").read_bytes())
    del content["checksum"]
    write_json(tmp_path / "run" / "run.json", content | {name: value}, checksum=True)
    by_name = (
        name in ("vision", "evolution") and isinstance(value, dict) and "os:system" in value.values()
    )  # chosen out of a list of names
    words = "unknown" if by_name else "do not fit this version of worldmodels"
    before = snapshot(tmp_path)
    refused(call(capsys, "train", "car-racing", "--run", tmp_path / "run"), words)
    assert snapshot(tmp_path) == before


SOURCES = sorted((ROOT / "src" / "worldmodels").rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "torch.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "pandas.read_pickle",
    "os.system",
    "os.popen",
}


WRITER, READER = "chunk_packing", "chunk_unpacking"
"""The one module that pickles and the one that unpickles, which reads bytes from a pipe to its parent process alone."""


def test_only_worker_processes_unpickle_and_only_what_their_parent_sends() -> None:
    readers = [path.stem for path in SOURCES if "Unpacker" in path.read_text() and path.stem != READER]
    assert readers == ["chunk_worker"]
    assert "load" not in next(path for path in SOURCES if path.stem == WRITER).read_text()
    worker = next(path for path in SOURCES if path.stem == "chunk_worker").read_text()
    assert "parts, keep, data = connection.recv()" in worker and worker.count("unpacker.unpack(data)") == 1


@pytest.mark.parametrize(
    "source", [path for path in SOURCES if path.stem not in (WRITER, READER)], ids=lambda path: path.stem
)
def test_the_source_never_loads_a_pickle_or_executes_text(source: Path) -> None:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES, ast.unparse(node)
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES, ast.unparse(node)
            assert (node.module, "load") not in {("torch", alias.name) for alias in node.names}, ast.unparse(node)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in FORBIDDEN_CALLS, ast.unparse(node)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert options.get("allow_pickle", "False") == "False", ast.unparse(node)
            assert options.get("shell", "False") == "False", ast.unparse(node)
