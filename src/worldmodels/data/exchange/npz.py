"""Episodes as NumPy archives, one ``.npz`` per episode: the format of most World Models scripts."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.core.files import write_bytes
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import check_empty
from worldmodels.data.exchange.archive import Archive
from worldmodels.data.exchange.health import checked_health, known_health

_BLOCK = 1024
"""Frames that are read at once."""
_NEEDED = ("obs", "action", "reward", "done")


class NpzEpisodes:
    """One archive per episode of T actions.

    obs (T+1, 64, 64, 3) uint8; action (T, A) and reward (T,) float32; done (T,) bool, True only at the last step and
    only if the world ended the episode, not a time limit; seed and renderer, which an archive to read may lack. For
    worlds that tell it, health (T+1,) float32: health[t] is that at frame t, before action t, NaN where it is unknown.
    """

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a new or empty directory and return how many there were."""
        check_empty(directory)
        count = 0
        for count, episode in enumerate(episodes, start=1):
            write_episode(npz_path(directory, count - 1), episode)
        return count

    def read(self, directory: Path) -> Iterator[Episode]:
        """The episodes of a directory, in the order of their file names. Raises :class:`UserError`; never unpickles."""
        paths = sorted(directory.glob("*.npz"))
        if not paths:
            raise UserError(f"no .npz episodes in {directory}; expected files with obs, action, reward and done")
        for path in paths:
            try:
                with Archive(path) as archive:
                    episode = _episode(archive)
            except Exception as error:  # zip, its codecs and NumPy each raise their own kinds
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{path} is not an episode: {reason}") from None
            yield episode


def npz_path(directory: Path, index: int) -> Path:
    """The path of episode ``index``, from 0."""
    return directory / f"episode-{index:06d}.npz"


def write_episode(path: Path, episode: Episode, **more: np.ndarray) -> None:
    """Write one episode as an archive, with ``more`` arrays by their names."""
    done = np.zeros(len(episode.actions), bool)
    done[-1:] = episode.terminated
    arrays: dict[str, Any] = {
        "obs": episode.frames,
        "action": episode.actions,
        "reward": episode.rewards,
        "done": done,
        "seed": np.int64(episode.seed),
        "renderer": np.str_(episode.renderer),
    }
    health = known_health(episode)
    if health is not None:
        arrays["health"] = health
    write_arrays(path, arrays | more)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as one compressed archive, atomically."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    write_bytes(path, file.getvalue())


def _episode(archive: Archive) -> Episode:
    missing = [name for name in _NEEDED if name not in archive.names]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    actions, rewards, done = (archive.read(name) for name in _NEEDED[1:])
    steps, header = len(actions), archive.header("obs")
    if header.dtype != np.uint8 or header.shape != (steps + 1, 64, 64, 3):
        raise ValueError(f"expected obs of shape {(steps + 1, 64, 64, 3)} uint8, got {header.shape} {header.dtype}")
    if actions.ndim != 2 or rewards.shape != (steps,) or done.shape != (steps,) or not steps:
        raise ValueError(f"expected as many actions (T, A), rewards and dones, got {actions.shape} and {rewards.shape}")
    if not np.isfinite(actions).all() or not np.isfinite(rewards).all():
        raise ValueError("actions or rewards hold NaN or infinity")
    return Episode(
        np.concatenate(list(archive.blocks("obs", _BLOCK))),
        actions.astype(np.float32),
        rewards.astype(np.float32),
        bool(done[-1]),
        int(archive.read("seed").reshape(())) if "seed" in archive.names else 0,
        archive.text("renderer") if "renderer" in archive.names else "unknown",
        checked_health(archive.read("health"), steps + 1) if "health" in archive.names else None,
    )
