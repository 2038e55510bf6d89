"""Episodes as a Hugging Face dataset: Parquet files with a row per frame, and the card that describes them."""

import io
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels.core.errors import UserError
from worldmodels.core.files import write_bytes
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import check_empty, needs

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
backend.
"""


class ParquetEpisodes:
    """A Hugging Face dataset: ``data/*.parquet``, one row group per episode, and the card README.md.

    Frames are PNG pictures, without loss. An episode of T actions has T+1 rows; action, reward and terminated are empty
    in its last row. ``datasets.load_dataset(FOLDER)`` loads it.
    """

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a new or empty directory and return how many there were."""
        check_empty(directory)
        arrow = needs("pyarrow", "writing a Hugging Face dataset")
        parquet = needs("pyarrow.parquet", "writing a Hugging Face dataset")
        (directory / "data").mkdir(parents=True, exist_ok=True)
        writer: Any = None
        numbers, frames, count = itertools.count(), 0, 0
        try:
            for count, episode in enumerate(episodes, start=1):
                table = _table(arrow, episode, count - 1)
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
                    for group in range(file.num_row_groups):
                        yield _episode(file.read_row_group(group, columns=list(_COLUMNS)).to_pydict())
            except (UserError, GeneratorExit):
                raise
            except Exception as error:  # Arrow and Pillow raise errors of many kinds
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{path} holds no episode in row group {group}: {reason}") from None


def _table(arrow: Any, episode: Episode, index: int) -> Any:
    steps, size = len(episode.actions), episode.actions.shape[1]
    ends = [False] * (steps - 1) + [episode.terminated]
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
    schema = arrow.schema(list(types.items()), metadata={"huggingface": json.dumps(_features(size))})
    return arrow.table(columns, schema=schema)


def _features(size: int) -> dict[str, Any]:
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
    terminated = bool(columns["terminated"][-2])
    return Episode(frames, actions, rewards, terminated, int(columns["seed"][0]), str(columns["renderer"][0]))
