"""Episodes as a Hugging Face dataset: Parquet files with a row per frame, and the card that describes them."""

import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels.core.errors import UserError
from worldmodels.core.files import write_bytes
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import check_empty, needs
from worldmodels.data.exchange.health import checked_health, known_health

_FILE_FRAMES = 50_000
"""Frames of a file, about; an episode is not divided."""
_COLUMNS = ("episode", "step", "image", "action", "reward", "terminated", "seed", "renderer")
_LARGEST_PICTURE = 1 << 20
_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
---

# Episodes recorded with worldmodels

A row is a frame: `image` (64x64, PNG), the number of its `episode` and its `step` there. `action` (the numbers that
encode it for the world model), `reward` and `terminated` (whether the world ended the episode) are those of the step
after the frame; at the last frame of an episode they are empty. `seed` is that of the environment, `renderer` its
backend. Worlds that tell it have a column `health`: that at the frame, which is the one before the action, and empty
where it is not known.
"""


class ParquetEpisodes:
    """A Hugging Face dataset: ``data/*.parquet``, one row group per episode, and the card README.md.

    Frames are PNG pictures, without loss. An episode of T actions has T+1 rows; action, reward and terminated are empty
    in its last row. For worlds that tell it, health is that at the frame. ``datasets.load_dataset(FOLDER)`` loads it.
    """

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a new or empty directory and return how many there were."""
        check_empty(directory)
        arrow = needs("pyarrow", "writing a Hugging Face dataset")
        parquet = needs("pyarrow.parquet", "writing a Hugging Face dataset")
        (directory / "data").mkdir(parents=True, exist_ok=True)
        writer: Any = None
        numbers, frames, count, with_health = itertools.count(), 0, 0, False
        try:
            for count, episode in enumerate(episodes, start=1):
                if not with_health and known_health(episode) is not None:
                    with_health = True
                    writer = writer and writer.close()
                    _add_health(arrow, parquet, directory)
                table = _table(arrow, episode, count - 1, with_health)
                if writer is None:
                    path = directory / "data" / f"train-{next(numbers):05d}.parquet"
                    writer, frames = parquet.ParquetWriter(path, table.schema, compression="zstd"), 0
                writer.write_table(table)
                frames += len(table)
                if frames >= _FILE_FRAMES:
                    writer = writer.close()
        finally:
            if writer is not None:
                writer.close()
        write_bytes(directory / "README.md", _CARD.encode())
        return count

    def read(self, directory: Path) -> Iterator[Episode]:
        """The episodes of a directory, in order. Raises :class:`UserError` for files that cannot be read."""
        parquet = needs("pyarrow.parquet", "reading a Hugging Face dataset")
        paths = sorted((directory / "data").glob("*.parquet"))
        if not paths:
            raise UserError(f"no Hugging Face dataset in {directory}; expected data/*.parquet there")
        for path in paths:
            group = 0
            try:
                with parquet.ParquetFile(path) as file:
                    missing = set(_COLUMNS) - set(file.schema_arrow.names)
                    if missing:
                        raise ValueError(f"it has no {', '.join(sorted(missing))}")
                    columns = [*_COLUMNS, *(["health"] if "health" in file.schema_arrow.names else [])]
                    for group in range(file.num_row_groups):
                        yield _episode(file.read_row_group(group, columns=columns).to_pydict())
            except (UserError, GeneratorExit):
                raise
            except Exception as error:  # Arrow and Pillow raise errors of many kinds
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{path} holds no episode in row group {group}: {reason}") from None


def _add_health(arrow: Any, parquet: Any, directory: Path) -> None:
    """Give the files so far, whose episodes have no health, an empty column for it: all files have the same columns."""
    for path in sorted((directory / "data").glob("*.parquet")):
        whole = path.with_suffix(".new")
        with parquet.ParquetFile(path) as file:
            schema = _schema(arrow, True)
            with parquet.ParquetWriter(whole, schema, compression="zstd") as writer:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group)
                    empty = arrow.nulls(len(table), arrow.float32())
                    writer.write_table(table.append_column("health", empty).cast(schema))
        whole.replace(path)


def _table(arrow: Any, episode: Episode, index: int, with_health: bool) -> Any:
    steps = len(episode.actions)
    ends = [False] * (steps - 1) + [episode.terminated]
    columns: dict[str, list[Any]] = {
        "episode": [index] * (steps + 1),
        "step": list(range(steps + 1)),
        "image": [{"bytes": _png(frame), "path": None} for frame in episode.frames],
        "action": [*episode.actions.tolist(), None],
        "reward": [*episode.rewards.tolist(), None],
        "terminated": [*ends[:steps], None],
        "seed": [episode.seed] * (steps + 1),
        "renderer": [episode.renderer] * (steps + 1),
    }
    if with_health:
        health = known_health(episode)
        values = [None] * (steps + 1) if health is None else health.tolist()
        columns["health"] = [None if value is None or math.isnan(value) else value for value in values]
    return arrow.table(columns, schema=_schema(arrow, with_health))


def _schema(arrow: Any, with_health: bool) -> Any:
    """The columns of a file, with what they mean in the words of Hugging Face's library."""
    types = {
        "episode": arrow.int64(),
        "step": arrow.int64(),
        "image": arrow.struct({"bytes": arrow.binary(), "path": arrow.string()}),
        "action": arrow.list_(arrow.float32()),
        "reward": arrow.float32(),
        "terminated": arrow.bool_(),
        "seed": arrow.int64(),
        "renderer": arrow.string(),
    }
    if with_health:
        types["health"] = arrow.float32()
    return arrow.schema(list(types.items()), metadata={"huggingface": json.dumps(_features(with_health))})


def _features(with_health: bool) -> dict[str, Any]:
    """What the columns mean, as Hugging Face's library stores it in a file's metadata."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    features = {
        "episode": value("int64"),
        "step": value("int64"),
        "image": {"_type": "Image"},
        "action": {"feature": value("float32"), "_type": "Sequence"},
        "reward": value("float32"),
        "terminated": value("bool"),
        "seed": value("int64"),
        "renderer": value("string"),
        **({"health": value("float32")} if with_health else {}),
    }
    return {"info": {"features": features}}


def _png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _picture(content: dict[str, Any]) -> np.ndarray:
    data = content["bytes"]
    if not isinstance(data, bytes) or len(data) > _LARGEST_PICTURE:
        raise ValueError("an image is missing or too large")
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:  # reads no more than the header
        if image.size != (64, 64):
            raise ValueError(f"expected images of 64x64 pixels, got {image.size}")
        return np.asarray(image.convert("RGB"))


def _episode(columns: dict[str, list[Any]]) -> Episode:
    steps = len(columns["step"]) - 1
    if steps < 1 or columns["step"] != list(range(steps + 1)) or len(set(columns["episode"])) != 1:
        raise ValueError("expected the frames of one episode in order")
    actions = np.array(columns["action"][:-1], np.float32)
    rewards = np.array(columns["reward"][:-1], np.float32)
    if actions.ndim != 2 or not np.isfinite(actions).all() or not np.isfinite(rewards).all():
        raise ValueError("expected finite numbers as actions and rewards")
    frames = np.stack([_picture(content) for content in columns["image"]])
    terminated, health = bool(columns["terminated"][-2]), None
    told = columns.get("health", [])
    if any(value is not None for value in told):
        health = checked_health(np.array([math.nan if value is None else value for value in told]), len(frames))
    seed, renderer = int(columns["seed"][0]), str(columns["renderer"][0])
    return Episode(frames, actions, rewards, terminated, seed, renderer, health)
