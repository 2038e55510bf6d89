"""Exporting what a run holds in the formats of other programs; a folder appears only when all of it is written."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import new_directory
from worldmodels.core.progress import Progress
from worldmodels.data.exchange import check_empty, episode_format
from worldmodels.data.exchange.npz import npz_path, write_arrays
from worldmodels.memory.latents import Latents
from worldmodels.run.reader import RunReader

T = TypeVar("T")


def export_episodes(run: Path, format_name: str, directory: Path) -> int:
    """Write the episodes of all rounds of a run in the format of that name; returns how many there were."""
    written, reader = episode_format(format_name), RunReader(run)
    check_empty(directory)
    if not reader.episode_count:
        raise UserError(f"{run} has no episodes yet; run its collect stage first")
    with new_directory(directory) as temporary:
        return written.write(_counted(reader.episodes(), reader.episode_count), temporary)


def export_latents(run: Path, directory: Path) -> int:
    """Write the latents of a run's last encoded round, one ``.npz`` file per episode; returns how many there were.

    A file of T actions holds mu and logvar (T+1, Z) float16, action (T, A) and reward (T,) float32, done (T,) bool, and
    for tasks with action masks action_mask (T+1, C) bool.
    """
    latents = RunReader(run).latents()
    check_empty(directory)
    count = len(latents.lengths)
    with new_directory(directory) as temporary:
        for index, arrays in enumerate(_counted(_arrays(latents), count)):
            write_arrays(npz_path(temporary, index), arrays)
    return count


def _arrays(latents: Latents) -> Iterator[dict[str, np.ndarray]]:
    frame = step = 0
    ends = latents.terminated.tolist()
    for index, length in enumerate(latents.lengths.tolist()):
        frames, steps = slice(frame, frame + length + 1), slice(step, step + length)
        done = np.zeros(length, bool)
        done[-1:] = ends[index]
        arrays = {
            "mu": latents.mu[frames].numpy(),
            "logvar": latents.logvar[frames].numpy(),
            "action": latents.actions[steps].numpy(),
            "reward": latents.rewards[steps].numpy(),
            "done": done,
        }
        if latents.action_mask is not None:
            arrays["action_mask"] = latents.action_mask[frames].numpy().astype(bool)
        yield arrays
        frame, step = frames.stop, steps.stop


def _counted(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, with progress and a look at signals before each."""
    with Progress(count, "export", "episodes") as bar:
        for item in items:
            interrupt.check()
            yield item
            bar.advance()
