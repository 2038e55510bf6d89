"""Shards of an unfinished collection: those that are not exactly what was recorded are recorded again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from cases import call, copy_of, digests
from worldmodels.core.errors import UserError
from worldmodels.core.files import read_json, write_json
from worldmodels.data.episodes import Episode, EpisodeStore, Shard

pytestmark = pytest.mark.usefixtures("short_world")

Change = Callable[[dict[str, np.ndarray]], Any]


def set_nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["rewards"][3] = np.nan


def set_infinite(arrays: dict[str, np.ndarray]) -> None:
    arrays["actions"][3, 0] = np.inf


def set_negative(arrays: dict[str, np.ndarray]) -> None:
    arrays["lengths"] = np.array([-1, arrays["lengths"].sum() + 1])


CHANGES: dict[str, Change] = {
    "frames in one dimension": lambda a: a.update(frames=a["frames"].reshape(len(a["frames"]), -1)[:, 0]),
    "frames of another size": lambda a: a.update(frames=a["frames"][:, ::2]),
    "frames that are numbers with a point": lambda a: a.update(frames=a["frames"].astype(np.float32)),
    "a frame too few": lambda a: a.update(frames=a["frames"][1:]),
    "actions of another size": lambda a: a.update(actions=a["actions"][:, 1:]),
    "actions in one dimension": lambda a: a.update(actions=a["actions"][:, 0]),
    "fewer rewards": lambda a: a.update(rewards=a["rewards"][5:]),
    "rewards in two dimensions": lambda a: a.update(rewards=a["rewards"][:, None]),
    "rewards that are not numbers": set_nan,
    "actions that are infinite": set_infinite,
    "a negative length": set_negative,
    "one length too many": lambda a: a.update(lengths=np.append(a["lengths"], 0)),
    "one seed too few": lambda a: a.update(seeds=a["seeds"][1:]),
    "other seeds": lambda a: a.update(seeds=a["seeds"] + 1),
    "ends that are neither yes nor no": lambda a: a.update(terminated=a["terminated"] + 7),
    "lengths of another type": lambda a: a.update(lengths=a["lengths"].astype(np.int32)),
}


def rewritten(path: Path, change: Change) -> None:
    """Store a shard again with changed arrays, whose chunks have the right checksums."""
    group: Any = zarr.open_group(path, mode="r", zarr_format=3)
    arrays = {name: np.asarray(group[name][:]) for name in group}
    attributes = dict(group.attrs)
    change(arrays)
    shutil.rmtree(path)
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=attributes)
    for name, values in arrays.items():
        group.create_array(name, data=values)


def flip_frames(path: Path) -> None:
    chunk = path / "frames" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 3] ^= 1
    chunk.write_bytes(data)


def rename_the_renderer(path: Path) -> None:
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["renderer"] = "gymnasium"
    (path / "zarr.json").write_text(json.dumps(content))


def make_a_pipe(path: Path) -> None:
    (path / "rewards" / "zarr.json").unlink()
    os.mkfifo(path / "rewards" / "zarr.json")


def make_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no folder")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit in the frames": flip_frames,
    "another renderer": rename_the_renderer,
    "a pipe": make_a_pipe,
    "a file": make_a_file,
}


@pytest.mark.parametrize("case", [*CHANGES, *DAMAGES])
def test_a_wrong_shard_of_an_unfinished_collection_is_recorded_again(
    case: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path / "run", until="vision")
    folder = run / "round-1" / "episodes"
    done = read_json(folder / "done.json", checksum=True)
    (folder / "done.json").unlink()
    write_json(folder / "begun.json", {"inputs": done["inputs"]}, checksum=True)
    shard = folder / "shard-00000.zarr"
    if case in CHANGES:
        rewritten(shard, CHANGES[case])
    else:
        DAMAGES[case](shard)
    outcome = call(capsys, "collect", "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    said = [line for line in outcome.err.splitlines() if "recording it again" in line]
    assert len(said) == 1 and said[0].startswith(f"collect: {shard} is damaged ("), outcome.err
    assert digests(run, ["collect"]) == digests(finished, ["collect"])


ONLY_THE_PLAN_SAYS = {
    "frames of another size",
    "actions of another size",
    "other seeds",
    "ends that are neither yes nor no",
}


@pytest.mark.parametrize("case", [name for name in CHANGES if name not in ONLY_THE_PLAN_SAYS])
def test_a_shard_whose_arrays_do_not_belong_together_is_refused_wherever_it_is_read(case: str, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    episode = Episode(
        np.zeros((21, 4, 4, 3), np.uint8), np.zeros((20, 2), np.float32), np.zeros(20, np.float32), True, 3, "fast"
    )
    store.write(0, [episode, episode])
    rewritten(store.shard_path(0), CHANGES[case])
    with pytest.raises(UserError, match="are damaged"):
        Shard(store.shard_path(0))
