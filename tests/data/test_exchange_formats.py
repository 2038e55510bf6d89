"""Minari and Hugging Face datasets: what is written comes back, also by those who defined the formats."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from minari import MinariDataset
from PIL import Image

from worldmodels.core.errors import UserError
from worldmodels.data import exchange
from worldmodels.data.exchange import episode_format
from worldmodels.data.exchange.parquet import ParquetEpisodes
from worlds import scripted_episodes

FORMATS = ["minari", "hf-dataset"]


@pytest.mark.parametrize("name", FORMATS)
def test_episodes_come_back_as_they_were(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodels.data.exchange.parquet._FILE_FRAMES", 9)
    episodes = scripted_episodes(range(30, 34))
    assert episode_format(name).write(iter(episodes), tmp_path / "out") == 4
    found = list(episode_format(name).read(tmp_path / "out"))
    assert len(found) == 4
    for mine, theirs in zip(found, episodes, strict=True):
        for part in ("frames", "actions", "rewards"):
            assert np.array_equal(getattr(mine, part), getattr(theirs, part)), part
            assert getattr(mine, part).dtype == getattr(theirs, part).dtype
        assert (mine.terminated, mine.seed) == (theirs.terminated, theirs.seed)


def test_minari_reads_the_dataset(tmp_path: Path) -> None:
    episodes = scripted_episodes([30, 31])
    episode_format("minari").write(episodes, tmp_path)
    dataset = MinariDataset(tmp_path / "data")
    assert dataset.total_episodes == 2 and dataset.total_steps == sum(len(one.actions) for one in episodes)
    for theirs, mine in zip(dataset.iterate_episodes(), episodes, strict=True):
        assert np.array_equal(theirs.observations, mine.frames) and np.array_equal(theirs.actions, mine.actions)
        assert np.array_equal(theirs.rewards, mine.rewards)
        assert theirs.terminations[-1] == mine.terminated and theirs.truncations[-1] != mine.terminated
        assert not theirs.terminations[:-1].any() and not theirs.truncations[:-1].any()


def test_a_hugging_face_dataset_says_what_its_columns_are(tmp_path: Path) -> None:
    (episode,) = scripted_episodes([30])
    episode_format("hf-dataset").write([episode], tmp_path)
    (path,) = (tmp_path / "data").iterdir()
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names and features["image"] == {"_type": "Image"}
    rows = table.to_pylist()
    for step, row in enumerate(rows):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))), episode.frames[step])
        last = step == len(episode.actions)
        assert row["action"] == (None if last else episode.actions[step].tolist())
        assert row["reward"] == (None if last else episode.rewards[step])
    assert "path: data/*.parquet" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_only_an_empty_folder_is_written_to_and_an_empty_one_is_no_dataset(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no (Minari|Hugging Face) dataset in"):
        next(episode_format(name).read(tmp_path))
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not an empty folder"):
        episode_format(name).write(scripted_episodes([30]), tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_package_is_named_with_the_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(exchange, "import_module", missing)
    with pytest.raises(UserError, match=r'needs (minari|pyarrow); pip install "worldmodels\[exchange\]"'):
        episode_format(name).write(scripted_episodes([30]), tmp_path)


def broken(change: Callable[[h5py.File], None], folder: Path) -> None:
    episode_format("minari").write(scripted_episodes([30]), folder)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file)


def _replaced(name: str, values: object, **options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["episode_0"][name]
        file["episode_0"].create_dataset(name, **({"data": values} if values is not None else {}), **options)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _replaced("observations", None, shape=(10**9, 64, 64, 3), dtype="u1", chunks=(1, 64, 64, 3)),
        _replaced("observations", np.zeros((3, 64, 64, 3), np.uint8)),
        _replaced("rewards", ["a", "b"]),
        _replaced("rewards", np.full(4, np.nan)),
        _replaced("terminations", np.zeros(2)),
        lambda file: file["episode_0"].__delitem__("actions"),
        lambda file: file.__delitem__("episode_0"),
    ],
)
def test_damaged_minari_datasets_are_refused_in_one_line(change: Callable[[h5py.File], None], tmp_path: Path) -> None:
    broken(change, tmp_path)
    with pytest.raises(UserError, match=r"main_data\.hdf5 (is no Minari dataset|holds no episodes)") as refused:
        list(episode_format("minari").read(tmp_path))
    assert "\n" not in str(refused.value)


def test_damaged_parquet_files_are_refused_in_one_line(tmp_path: Path) -> None:
    ParquetEpisodes().write(scripted_episodes([30]), tmp_path)
    (path,) = (tmp_path / "data").iterdir()
    data, table = path.read_bytes(), pq.read_table(path)

    def large() -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (65, 64)).save(file, "PNG")
        return file.getvalue()

    def image(content: object) -> Callable[[], object]:
        column = pa.array([{"bytes": content, "path": None}] * len(table), table.schema.field("image").type)
        return lambda: pq.write_table(table.set_column(2, table.schema.field("image"), column), path)

    damages: list[Callable[[], object]] = [
        lambda: path.write_bytes(data[: len(data) // 2]),
        lambda: path.write_bytes(b""),
        lambda: pq.write_table(table.drop_columns(["reward"]), path),
        lambda: pq.write_table(table.slice(1), path),
        image(b"no picture"),
        image(large()),
        image(None),
    ]
    for damage in damages:
        damage()
        with pytest.raises(UserError, match=r"train-00000\.parquet holds no episode") as refused:
            list(ParquetEpisodes().read(tmp_path))
        assert "\n" not in str(refused.value)
