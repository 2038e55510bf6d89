"""Episodes as NumPy archives, one ``.npz`` per episode: the format of most World Models scripts."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.core.files import write_bytes
from worldmodels.data.episodes import Episode

_NAME = "episode-{:06d}.npz"
_NEEDED = ("obs", "action", "reward", "done")


class NpzEpisodes:
    """One archive per episode of T actions.

    obs (T+1, 64, 64, 3) uint8; action (T, A) and reward (T,) float32; done (T,) bool, True only at the last step and
    only if the world ended the episode, not a time limit; seed and renderer, which an archive to read may lack.
    """

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a new or empty directory and return how many there were."""
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UserError(f"{directory} is not an empty folder; choose another one for the episodes")
        count = 0
        for count, episode in enumerate(episodes, start=1):
            done = np.zeros(len(episode.actions), bool)
            done[-1:] = episode.terminated
            arrays = {
                "obs": episode.frames,
                "action": episode.actions,
                "reward": episode.rewards,
                "done": done,
                "seed": np.int64(episode.seed),
                "renderer": np.str_(episode.renderer),
            }
            file = io.BytesIO()
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            write_bytes(directory / _NAME.format(count - 1), file.getvalue())
        return count

    def read(self, directory: Path) -> Iterator[Episode]:
        """The episodes of a directory, in the order of their file names. Raises :class:`UserError`; never unpickles."""
        paths = sorted(directory.glob("*.npz"))
        if not paths:
            raise UserError(f"no .npz episodes in {directory}; expected files with obs, action, reward and done")
        for path in paths:
            try:
                if not zipfile.is_zipfile(path):
                    raise ValueError("it is not a whole NumPy archive, and pickled files are never loaded")
                with np.load(path, allow_pickle=False) as archive:
                    episode = _episode({name: archive[name] for name in archive.files})
            except Exception as error:  # zip, its codecs and NumPy each raise their own kinds
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{path} is not an episode: {reason}") from None
            yield episode


def _episode(arrays: dict[str, np.ndarray]) -> Episode:
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    frames, actions, rewards, done = (arrays[name] for name in _NEEDED)
    steps = len(actions)
    if frames.dtype != np.uint8 or frames.shape != (steps + 1, 64, 64, 3):
        raise ValueError(f"expected obs of shape {(steps + 1, 64, 64, 3)} uint8, got {frames.shape} {frames.dtype}")
    if actions.ndim != 2 or rewards.shape != (steps,) or done.shape != (steps,) or not steps:
        raise ValueError(f"expected as many actions (T, A), rewards and dones, got {actions.shape} and {rewards.shape}")
    return Episode(
        frames,
        actions.astype(np.float32),
        rewards.astype(np.float32),
        bool(done[-1]),
        int(arrays.get("seed", np.int64(0))),
        str(arrays.get("renderer", "unknown")),
    )
