"""Episodes as a Minari dataset: HDF5 files that programs for offline reinforcement learning read."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import check_empty, needs
from worldmodels.data.exchange.health import checked_health, known_health

DATASET_ID = "worldmodels/episodes-v0"
"""The dataset's name for Minari, and its place below Minari's folder of datasets."""
_FILE = Path("data") / "main_data.hdf5"
_LARGEST = 8 << 30
"""Bytes of the largest episode that is read."""


class MinariEpisodes:
    """A Minari dataset, in the folder ``data``; frames are stored without loss.

    observations (T+1, 64, 64, 3) uint8; actions (T, A) float32, as M sees them; rewards (T,); terminations (T,): True
    at the last step if the world ended the episode; truncations (T,): True there if a limit did.
    For worlds that tell it, infos hold the health (T+1,) float32 at every frame: health[t] is that before action t.
    """

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a new or empty directory and return how many there were."""
        check_empty(directory)
        minari = needs("minari", "writing a Minari dataset")
        needs("h5py", "writing a Minari dataset")
        storages = needs("minari.dataset.minari_storage", "writing a Minari dataset")
        storage: Any = None
        count = 0
        directory = directory.absolute()  # Minari measures the size of its files wrongly in a relative one
        for episode in episodes:
            count += 1
            if storage is None:
                shape = episode.actions.shape[1:]
                (directory / "data").mkdir(parents=True)
                storage = storages.MinariStorage.new(
                    directory / "data",
                    observation_space=spaces.Box(0, 255, episode.frames.shape[1:], np.uint8),
                    action_space=spaces.Box(-np.inf, np.inf, shape, np.float32),
                    jpeg_encoding=False,
                )
            storage.update_episodes([_buffer(minari, episode)])
        if storage is not None:
            about = {"dataset_id": DATASET_ID, "minari_version": minari.__version__, "algorithm_name": "worldmodels"}
            storage.update_metadata(about)
        return count

    def read(self, directory: Path) -> Iterator[Episode]:
        """The episodes of a directory, in order. Raises :class:`UserError` for files that cannot be read."""
        h5py = needs("h5py", "reading a Minari dataset")
        path = directory / _FILE if (directory / _FILE).is_file() else directory / _FILE.name
        if not path.is_file():
            raise UserError(f"no Minari dataset in {directory}; expected {_FILE} there")
        index = 0
        try:
            with h5py.File(path, "r") as file:
                while f"episode_{index}" in file:
                    yield _episode(file[f"episode_{index}"], h5py)
                    index += 1
        except (UserError, GeneratorExit):
            raise
        except Exception as error:  # HDF5 raises errors of many kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} is no Minari dataset of episodes: episode {index}: {reason}") from None
        if not index:
            raise UserError(f"{path} holds no episodes")


def _buffer(minari: Any, episode: Episode) -> Any:
    last = np.zeros(len(episode.actions), bool)
    last[-1:] = True
    health = known_health(episode)
    return minari.data_collector.EpisodeBuffer(
        seed=episode.seed,
        observations=episode.frames,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=last & episode.terminated,
        truncations=last & (not episode.terminated),
        infos=None if health is None else {"health": health},
    )


def _episode(group: Any, h5py: Any) -> Episode:
    arrays = {}
    for name in ("observations", "actions", "rewards", "terminations"):
        data = group[name]
        if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "buif" or data.nbytes > _LARGEST:
            raise ValueError(f"{name} is no array of numbers of a moderate size")
        arrays[name] = data
    steps = len(arrays["actions"])
    if arrays["observations"].shape != (steps + 1, 64, 64, 3) or arrays["observations"].dtype != np.uint8:
        raise ValueError(f"expected observations {(steps + 1, 64, 64, 3)} uint8, got {arrays['observations'].shape}")
    if not steps or any(arrays[name].shape != (steps,) for name in ("rewards", "terminations")):
        raise ValueError("expected as many rewards and terminations as actions")
    actions = np.asarray(arrays["actions"][()], np.float32).reshape(steps, -1)
    rewards = np.asarray(arrays["rewards"][()], np.float32)
    if not np.isfinite(actions).all() or not np.isfinite(rewards).all():
        raise ValueError("actions or rewards hold NaN or infinity")
    frames, terminated = np.asarray(arrays["observations"][()]), bool(arrays["terminations"][-1])
    health = None
    if "infos/health" in group:
        data = group["infos/health"]
        if not isinstance(data, h5py.Dataset) or data.shape != (steps + 1,):
            raise ValueError(f"expected a health for each of {steps + 1} observations")
        health = checked_health(np.asarray(data[()]), steps + 1)
    return Episode(frames, actions, rewards, terminated, int(group.attrs.get("seed", 0)), "minari", health)
