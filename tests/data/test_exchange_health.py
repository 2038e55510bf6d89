"""The health in the files of other programs: it stays at its frame, there and back, and is checked when it is read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from minari import MinariDataset

from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import episode_format
from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.data.exchange.recordings import read_recording, scan
from worldmodels.tasks import Task
from worlds import Scripted, scripted_episodes

FORMATS = ["npz", "minari", "hf-dataset"]
FULL = 100.0


def health_at(seed: int, step: int) -> float:
    """Another number for every frame, exact in float32; after three steps it is not known."""
    return float("nan") if step == 3 else FULL - seed / 4 - step / 64


def wounded(*seeds: int) -> list[Episode]:
    """Episodes whose pictures tell the seed and the step, with the health at every frame."""
    return [
        replace(one, health=np.array([health_at(one.seed, step) for step in range(len(one.frames))], np.float32))
        for one in scripted_episodes(seeds)
    ]


def same(mine: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return mine.dtype == theirs.dtype == np.float32 and np.array_equal(mine, theirs, equal_nan=True)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("order", ["all", "first", "last", "none"])
def test_the_health_comes_back_where_it_was_recorded(
    name: str, order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldmodels.data.exchange.parquet._FILE_FRAMES", 9)
    some, others = wounded(33, 34, 35), scripted_episodes([30, 31, 32])
    episodes = {"all": some, "first": some + others, "last": others + some, "none": others}[order]
    assert episode_format(name).write(iter(episodes), tmp_path / "out") == len(episodes)
    found = list(episode_format(name).read(tmp_path / "out"))
    assert len(found) == len(episodes)
    for mine, theirs in zip(found, episodes, strict=True):
        assert same(mine.health, theirs.health)
        assert np.array_equal(mine.frames, theirs.frames) and np.array_equal(mine.actions, theirs.actions)
        assert np.array_equal(mine.rewards, theirs.rewards) and mine.seed == theirs.seed


def test_in_npz_files_health_t_is_that_at_observation_t(tmp_path: Path) -> None:
    episode_format("npz").write([*wounded(33), *scripted_episodes([34])], tmp_path)
    first, second = sorted(tmp_path.iterdir())
    with np.load(first, allow_pickle=False) as file:
        seen = file["obs"][:, 0, 0]
        wanted = [health_at(int(seed), int(step)) for seed, step, _ in seen]
        assert np.array_equal(file["health"], np.array(wanted, np.float32), equal_nan=True)
        assert len(file["health"]) == len(file["action"]) + 1
    with np.load(second, allow_pickle=False) as file:
        assert "health" not in file.files


def test_minari_has_it_among_the_infos(tmp_path: Path) -> None:
    episodes = [*wounded(33, 34), *scripted_episodes([35])]
    episode_format("minari").write(episodes, tmp_path)
    first, second, third = MinariDataset(tmp_path / "data").iterate_episodes()
    for theirs, mine in zip((first, second), episodes, strict=False):
        assert same(theirs.infos["health"], mine.health) and len(theirs.observations) == len(theirs.infos["health"])
    assert not third.infos


def test_a_minari_dataset_can_be_written_into_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert episode_format("minari").write(wounded(33), Path("mine")) == 1
    assert MinariDataset(tmp_path / "mine" / "data").total_episodes == 1


ARROW = {"int64": pa.int64(), "float32": pa.float32(), "bool": pa.bool_(), "string": pa.string()}


@pytest.mark.parametrize("told", [False, True])
def test_all_files_of_a_hugging_face_dataset_have_the_columns_that_they_describe(
    told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldmodels.data.exchange.parquet._FILE_FRAMES", 9)
    episodes = [*scripted_episodes([30, 31, 32]), *(wounded(33, 34) if told else [])]
    episode_format("hf-dataset").write(episodes, tmp_path)
    paths = sorted((tmp_path / "data").iterdir())
    assert len(paths) > 1 and {path.suffix for path in paths} == {".parquet"}
    for path in paths:
        schema = pq.read_schema(path)
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert list(features) == schema.names and ("health" in features) == told
        for name, feature in features.items():
            kinds = {
                "Value": ARROW[feature.get("dtype", "string")],
                "Image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
                "Sequence": pa.list_(ARROW[feature.get("feature", feature).get("dtype", "string")]),
            }
            assert schema.field(name).type == kinds[feature["_type"]], name
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    wanted = [
        value for one in episodes
        for value in (np.full(len(one.frames), np.nan) if one.health is None else one.health).tolist()
    ]  # fmt: skip
    if told:
        assert [row["health"] for row in rows] == [None if np.isnan(value) else value for value in wanted]
    assert [row["step"] for row in rows] == [step for one in episodes for step in range(len(one.frames))]


def _npz(values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (path,) = folder.glob("*.npz")
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        np.savez(path, **(arrays | {"health": values}))

    return change


def _minari(values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            del file["episode_0/infos/health"]
            file["episode_0/infos"].create_dataset("health", data=values)

    return change


def _parquet(values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (path,) = (folder / "data").iterdir()
        table = pq.read_table(path)
        pq.write_table(table.set_column(table.column_names.index("health"), "health", pa.array(values)), path)

    return change


DAMAGES = {
    "npz: too short": ("npz", _npz(np.ones(3, np.float32))),
    "npz: two-dimensional": ("npz", _npz(np.ones((7, 1), np.float32))),
    "npz: infinite": ("npz", _npz(np.full(7, np.inf, np.float32))),
    "npz: too large": ("npz", _npz(np.full(7, 1e300))),
    "npz: text": ("npz", _npz(np.array(["well"] * 7))),
    "minari: too short": ("minari", _minari(np.ones(3, np.float32))),
    "minari: infinite": ("minari", _minari(np.full(7, -np.inf, np.float32))),
    "minari: text": ("minari", _minari([b"well"] * 7)),
    "parquet: infinite": ("hf-dataset", _parquet([float("inf")] * 7)),
    "parquet: text": ("hf-dataset", _parquet(["well"] * 7)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_health_that_cannot_be_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    name, change = DAMAGES[damage]
    (episode,) = wounded(32)
    assert len(episode.frames) == 7
    episode_format(name).write([episode], tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=r"is not an episode|is no Minari dataset|holds no episode") as refused:
        list(episode_format(name).read(tmp_path))
    assert "\n" not in str(refused.value)


class Ailing(Scripted):
    """The scripted world, said to tell its health."""

    full_health = FULL


def imported(folder: Path, task: Task, **arrays: Any) -> Episode:
    """The episode that an import makes of a file with these arrays."""
    np.savez(folder / "one.npz", **arrays)
    (recording,) = scan(folder, RecordingConfig())
    return read_recording(recording, task, RecordingConfig(), seed=3)


def test_what_was_exported_is_imported_with_its_health(tmp_path: Path) -> None:
    episodes = wounded(30, 31, 33)
    episode_format("npz").write(episodes, tmp_path)
    for recording, wanted in zip(scan(tmp_path, RecordingConfig()), episodes, strict=True):
        found = read_recording(recording, Ailing(), RecordingConfig(), wanted.seed)
        assert same(found.health, wanted.health) and np.array_equal(found.frames, wanted.frames)
        assert found.health is not None and len(found.health) == len(found.actions) + 1


@pytest.mark.parametrize("layout", ["whole", "before", "before, ended", "after"])
def test_the_health_stays_at_its_observation_in_every_layout(layout: str, tmp_path: Path) -> None:
    (episode,) = wounded(32)
    steps, health = len(episode.actions), episode.health
    assert health is not None
    names = ("observations", "terminals") if layout == "after" else ("obs", "done")
    seen = {"whole": slice(None), "after": slice(1, None)}.get(layout, slice(steps))
    done = np.arange(steps) == (steps - 1 if layout == "before, ended" else -1)
    arrays = {names[0]: episode.frames[seen], names[1]: done, "health": health[seen]}
    found = imported(tmp_path, Ailing(), action=episode.actions / 2, reward=episode.rewards, **arrays)
    assert found.health is not None and len(found.health) == len(found.frames) == len(found.actions) + 1
    for index, value in enumerate(found.health.tolist()):
        seed, step, _ = found.frames[index, 0, 0].tolist()
        repeated = layout == "before, ended" and index == steps
        wanted = float("nan") if repeated else health_at(seed, step)
        assert value == wanted or (np.isnan(value) and np.isnan(wanted)), index


def test_a_health_of_another_length_is_refused_where_the_world_tells_one(tmp_path: Path) -> None:
    (episode,) = wounded(32)
    arrays = {"obs": episode.frames, "action": episode.actions / 2, "reward": episode.rewards}
    for wrong in (np.ones(6), np.ones((7, 2)), np.full(7, np.inf), np.array(["well"] * 7)):
        with pytest.raises(UserError, match=r"one\.npz is not an episode: .*health"):
            imported(tmp_path, Ailing(), **arrays, health=wrong)
        assert imported(tmp_path, Scripted(), **arrays, health=wrong).health is None, "it may be something else"
    assert imported(tmp_path, Ailing(), **arrays).health is None
