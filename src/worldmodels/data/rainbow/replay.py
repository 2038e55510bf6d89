"""Prioritised replay that holds the numbers of frames instead of the frames, which are in memory already."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from tianshou.data import Batch, PrioritizedReplayBuffer, ReplayBuffer

from worldmodels.data.collect import Recorder
from worldmodels.data.episodes import Shard
from worldmodels.tasks import Task


class RecordedFrames:
    """The frames of a recorder, as a part of :class:`Frames`: frame t of row r has the number r * (steps + 1) + t."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __len__(self) -> int:
        return len(self._recorder.lengths) * (self._recorder.steps + 1)

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        return self._recorder.frames(*np.divmod(numbers, self._recorder.steps + 1))


class Frames:
    """Frames of several parts, which are arrays (n, 64, 64, 3) or alike, numbered from 0 across all parts."""

    def __init__(self, parts: Sequence[np.ndarray | RecordedFrames]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in self._parts)])

    def start(self, part: int) -> int:
        """The number of the first frame of the part with the index ``part``."""
        return int(self._starts[part])

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """The frames (n, 64, 64, 3) with these numbers (n,)."""
        frames = np.empty((len(numbers), 64, 64, 3), np.uint8)
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        for part in np.unique(parts).tolist():
            chosen = parts == part
            frames[chosen] = self._parts[part][numbers[chosen] - self._starts[part]]
        return frames


@dataclass(frozen=True)
class Transitions:
    """n transitions: frames, actions, rewards and ended, each (n,).

    frames: numbers of the frames before the actions; the frame after an action has the next number.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray


def remembered(shards: Sequence[Path], count: int, task: Task) -> tuple[list[np.ndarray], Transitions]:
    """The frames of stored shards, and their last ``count`` transitions in the order in which they were played."""
    kept: list[tuple[np.ndarray, Transitions]] = []
    for path in reversed(shards):
        if count > 0:
            shard = Shard(path)
            kept.insert(0, (shard.frames(0, shard.num_frames), _last(shard, count, task)))
            count -= len(kept[0][1].frames)
    parts, starts = [part for part, _ in kept], Frames([part for part, _ in kept])
    columns = [
        (transitions.frames + starts.start(part), transitions.actions, transitions.rewards, transitions.ended)
        for part, (_, transitions) in enumerate(kept)
    ]
    return parts, Transitions(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _last(shard: Shard, count: int, task: Task) -> Transitions:
    lengths = shard.lengths
    rows = np.repeat(np.arange(len(lengths)), lengths)
    times = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    # The environments were stepped together: the first steps of all come before the second steps of all.
    played = np.lexsort((rows, times))[-count:]
    assert isinstance(task.action_space, spaces.Discrete)
    codes = task.memory_action(np.arange(task.action_space.n))
    distances = [np.abs(shard.actions[played] - code).sum(axis=1) for code in codes]
    ended = (shard.terminated[rows] > 0) & (times == lengths[rows] - 1)
    # Every episode has one frame more than transitions.
    numbers = (np.arange(len(rows)) + rows)[played]
    return Transitions(numbers, np.argmin(distances, axis=0), shard.rewards[played], ended[played])


class FrameReplay(PrioritizedReplayBuffer):
    """Tianshou's prioritised replay buffer with the published exponents and its own random stream."""

    def __init__(self, size: int, task: Task, frames: Frames, random: np.random.Generator) -> None:
        super().__init__(size, alpha=0.5, beta=0.5)
        self._task, self._frames, self._random = task, frames, random

    def keep(self, frame: int, action: int, reward: float, ended: bool) -> None:
        """Add one transition, which replaces the oldest one when the buffer is full."""
        self.add(Batch(obs=frame, act=action, rew=reward, terminated=ended, truncated=False, obs_next=frame + 1))

    def refill(self, old: Transitions, priorities: np.ndarray, bounds: tuple[float, float]) -> None:
        """Add transitions, oldest first, with their :meth:`priorities` and the :attr:`bounds` at the time."""
        never = np.zeros(len(old.frames), bool)
        self.update(
            ReplayBuffer.from_data(old.frames, old.actions, old.rewards, old.ended, never, old.ended, old.frames + 1)
        )
        self.weight[np.arange(len(priorities))] = priorities
        self._min_prio, self._max_prio = bounds

    def priorities(self) -> np.ndarray:
        """The priority of every transition, oldest first, (n,) float64."""
        return np.asarray(self.weight[super().sample_indices(0)])

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and highest error so far."""
        return float(self._min_prio), float(self._max_prio)

    def sample_indices(self, batch_size: int | None) -> np.ndarray:
        """Indices of transitions drawn by priority, (batch_size,); 0 or None: of all of them."""
        if not batch_size:
            return np.asarray(super().sample_indices(batch_size))
        indices = self.weight.get_prefix_sum_idx(self._random.random(batch_size) * self.weight.reduce())
        return np.asarray(np.minimum(indices, len(self) - 1))  # rounded sums may lead past the last transition

    def __getitem__(self, index: Any) -> Any:
        batch = super().__getitem__(index)
        for key in ("obs", "obs_next"):
            batch[key] = batch_of_frames(self._task, self._frames(batch[key]))
        return batch


def batch_of_frames(task: Task, frames: np.ndarray) -> Batch:
    """Frames (n, 64, 64, 3) as a Tianshou batch, with the action mask where the task has one."""
    mask = task.action_mask(frames)
    return Batch(obs=frames) if mask is None else Batch(obs=frames, mask=mask.astype(np.int8))
