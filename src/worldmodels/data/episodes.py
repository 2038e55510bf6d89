"""The episode store: zarr v3 groups, one per shard, which never have to fit in memory.

A *shard* holds several whole episodes one after the other. Of an episode of T actions it holds T+1 frames (the first
is the reset frame, the last the one after the final action), T actions, T rewards and whether the world ended it. A
shard is written to a hidden directory and renamed, so that it is visible only when complete; every chunk is compressed
with zstd and has a checksum. Legend: E episodes, A numbers that encode an action for M.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from worldmodels.core.chunks import FRAME_CHUNK
from worldmodels.core.errors import UserError
from worldmodels.core.files import disk_errors, new_directory
from worldmodels.core.storage.mirror import written
from worldmodels.data.mirrored import store_of

_DTYPES = {
    "frames": "uint8",
    "actions": "float32",
    "rewards": "float32",
    "lengths": "int64",
    "terminated": "uint8",
    "seeds": "int64",
}
_FILE_FRAMES = 32 * FRAME_CHUNK
"""Frames per file."""


@dataclass(frozen=True)
class Episode:
    """One playthrough of T actions.

    frames: (T+1, 64, 64, 3) uint8, of a long episode that was just recorded compressed in memory, so that its slices
    are arrays (``growing.PackedFrames``); actions: (T, A) float32, as M sees them; rewards: (T,) float32;
    terminated: whether the world ended it (False: a time limit did); seed: of the environment; renderer: the backend;
    health: (T+1,) float32, at every frame, None where the world does not tell it.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    seed: int
    renderer: str
    health: np.ndarray | None = None

    def __repr__(self) -> str:
        end = "ended by the world" if self.terminated else "cut off"
        score = float(self.rewards.sum())
        return f"Episode({len(self.actions)} steps, return {score:.1f}, {end}, seed={self.seed}, {self.renderer!r})"


class Shard:
    """Stored episodes; frames are read when they are needed, everything else at once.

    lengths: (E,) int64, the actions of each episode; actions (sum of lengths, A) float32; rewards (sum of lengths,)
    float32; terminated (E,) uint8; seeds (E,) int64; health (num_frames,) float32, NaN where it is not known, or None
    where it was not recorded at all. Raises :class:`UserError` for a damaged shard, but does not read its frames.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _check_files(path)
            group: Any = zarr.open_group(store_of(path), mode="r", zarr_format=3)
            arrays = {name: _checked(group[name], name, dtype) for name, dtype in _DTYPES.items()}
            self._frames = arrays["frames"]
            self.lengths = np.asarray(arrays["lengths"][:])
            self.actions = np.asarray(arrays["actions"][:])
            self.rewards = np.asarray(arrays["rewards"][:])
            self.terminated = np.asarray(arrays["terminated"][:])
            self.seeds = np.asarray(arrays["seeds"][:])
            health = _checked(group["health"], "health", "float32") if "health" in group else None
            self.health = None if health is None else np.asarray(health[:])
            self.renderer = str(group.attrs["renderer"])
        except UserError:  # a bucket cannot be reached
            raise
        except Exception as error:  # zarr, codecs and json each raise their own kinds
            raise _damaged(path, error) from None
        if problem := self._problem():
            raise _damaged(path, ValueError(problem))

    def _problem(self) -> str:
        """What is wrong with the arrays, in words; empty for nothing."""
        if self._frames.ndim != 4 or self.actions.ndim != 2:
            return "frames or actions have the wrong number of dimensions"
        if any(array.ndim != 1 for array in (self.rewards, self.lengths, self.terminated, self.seeds)):
            return "rewards, lengths, terminated or seeds are not one-dimensional"
        if not len(self.lengths) == len(self.terminated) == len(self.seeds):
            return "the arrays disagree about the number of episodes"
        # Each one first, because the sum of some negative or huge lengths could be right.
        if len(self.lengths) == 0 or self.lengths.min() < 0 or self.lengths.max() > len(self.actions):
            return "the lengths of the episodes are wrong"
        steps = int(self.lengths.sum())
        if not len(self.actions) == len(self.rewards) == steps or self.num_frames != steps + len(self.lengths):
            return "the arrays disagree about the number of steps"
        if self.health is not None and self.health.shape != (self.num_frames,):
            return "the arrays disagree about the number of frames"
        if not np.isfinite(self.rewards).all() or not np.isfinite(self.actions).all():
            return "rewards or actions are not finite"
        return ""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of one frame."""
        return tuple(self._frames.shape[1:])

    def __repr__(self) -> str:
        return f"Shard({str(self.path)!r}, {len(self.lengths)} episodes, {self.num_frames:,} frames)"

    @property
    def num_frames(self) -> int:
        """Frames in this shard: for each episode one more than it has actions."""
        return int(self._frames.shape[0])

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start`` to ``stop`` of the shard, (n, 64, 64, 3) uint8."""
        try:
            return np.asarray(self._frames[start:stop])
        except UserError:
            raise
        except Exception as error:
            raise _damaged(self.path, error) from None

    def returns(self) -> np.ndarray:
        """The sum of the rewards of each episode, (E,)."""
        return np.array([part.sum() for part in np.split(self.rewards, np.cumsum(self.lengths)[:-1])])

    def episodes(self) -> Iterator[Episode]:
        """Every episode of the shard; frames are loaded one episode at a time."""
        for index in range(len(self.lengths)):
            yield self.episode(index)

    def episode(self, index: int) -> Episode:
        """Episode ``index`` of the shard, from 0."""
        length, step = int(self.lengths[index]), int(self.lengths[:index].sum())
        frame = step + index  # an episode has one more frame than it has steps
        return Episode(
            self.frames(frame, frame + length + 1),
            self.actions[step : step + length],
            self.rewards[step : step + length],
            bool(self.terminated[index]),
            int(self.seeds[index]),
            self.renderer,
            None if self.health is None else self.health[frame : frame + length + 1],
        )


def _check_files(path: Path) -> None:
    """ValueError unless all files of a shard are regular: reading a pipe could wait for ever."""
    for entry in path.rglob("*"):
        if not entry.is_file() and not entry.is_dir():
            raise ValueError(f"{entry.name} is not a regular file")


def _checked(array: Any, name: str, dtype: str) -> Any:
    """``array`` if it has that dtype, else ValueError; an array of objects could contain a pickle."""
    if not isinstance(array, zarr.Array) or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name} is not an array of {dtype}")
    return array


def _damaged(path: Path, error: Exception) -> UserError:
    detail = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
    return UserError(f"episodes in {path} are damaged ({detail}); delete that folder and collect again")


def _pieces(episodes: Sequence[Episode]) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of all episodes in pieces that fill one file, each with its index; copies one piece at a time."""
    buffer: list[np.ndarray] = []
    held = start = 0
    for episode in episodes:
        done = 0
        while done < len(episode.frames):
            part = episode.frames[done : done + _FILE_FRAMES - held]
            done += len(part)
            buffer.append(part)
            held += len(part)
            if held == _FILE_FRAMES:
                yield start, np.concatenate(buffer)
                buffer, held, start = [], 0, start + _FILE_FRAMES
    if held:
        yield start, np.concatenate(buffer)


class EpisodeStore:
    """A directory of shards, in the order of their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def shard_path(self, index: int) -> Path:
        """The path of shard ``index``, whether or not it is written."""
        return self.directory / f"shard-{index:05d}.zarr"

    def has(self, index: int) -> bool:
        """Whether shard ``index`` is complete."""
        return self.shard_path(index).is_dir()

    def remove(self, index: int) -> None:
        """Remove shard ``index``; of a link, only the link."""
        path = self.shard_path(index)
        with disk_errors(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def write(self, index: int, episodes: Sequence[Episode]) -> None:
        """Write one shard, which gets its name only when every byte is on the disk. Episodes must have one renderer."""
        frames = sum(len(episode.frames) for episode in episodes)
        codec = ZstdCodec(level=3, checksum=True)
        with new_directory(self.shard_path(index)) as temporary:
            attributes: dict[str, Any] = {"renderer": episodes[0].renderer}
            group = zarr.open_group(temporary, mode="w", zarr_format=3, attributes=attributes)
            shape = episodes[0].frames.shape[1:]
            stored = group.create_array(
                "frames",
                shape=(frames, *shape),
                chunks=(FRAME_CHUNK, *shape),
                shards=(_FILE_FRAMES, *shape),
                dtype="uint8",
                compressors=codec,
                fill_value=0,
            )
            for start, piece in _pieces(episodes):
                stored[start : start + len(piece)] = piece
            small: dict[str, np.ndarray] = {
                "actions": np.concatenate([episode.actions for episode in episodes]).astype(np.float32),
                "rewards": np.concatenate([episode.rewards for episode in episodes]).astype(np.float32),
                "lengths": np.array([len(episode.actions) for episode in episodes], dtype=np.int64),
                "terminated": np.array([episode.terminated for episode in episodes], dtype=np.uint8),
                "seeds": np.array([episode.seed for episode in episodes], dtype=np.int64),
            }
            if any(episode.health is not None for episode in episodes):
                told = [
                    np.full(len(episode.frames), np.nan) if episode.health is None else episode.health
                    for episode in episodes
                ]
                small["health"] = np.concatenate(told).astype(np.float32)
            for name, values in small.items():
                group.create_array(name, data=values, chunks=values.shape, compressors=codec)
        written(self.shard_path(index))

    def paths(self) -> list[Path]:
        """Paths of the complete shards, in order."""
        return sorted(self.directory.glob("shard-*.zarr"))

    def shards(self) -> list[Shard]:
        """Every complete shard. Raises :class:`UserError` if there is none."""
        paths = self.paths()
        if not paths:
            raise UserError(f"no episodes in {self.directory}; run the collect stage first")
        return [Shard(path) for path in paths]
