"""Flush after flush of episodes whose player learns from them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import torch

from worldmodels.collecting import Recorder
from worldmodels.rainbow.learner import Learner
from worldmodels.rollouts import rollout
from worldmodels.storage.episodes import Episode, EpisodeStore, Flush
from worldmodels.tasks import Task
from worldmodels.workers.recover import retrying


class Rainbow:
    """Plays one flush after the other; what it has learnt is kept beside them.

    Every flush begins with what was saved after the one before and with a replay refilled from stored episodes, so that
    a collection that was killed and one that was not are the same. ``steps``: longest that all episodes can be.
    """

    def __init__(self, task: Task, store: EpisodeStore, seed: int, device: torch.device, steps: int) -> None:
        self._task, self._store, self._seed, self._device, self._steps = task, store, seed, device, steps

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of flush ``index``; earlier flushes must be stored."""
        state = self._path(index - 1) if index else None
        if state is not None and not state.exists():
            self._learn_again(index - 1)

        before, key = [self._store.flush_path(earlier) for earlier in range(index)], [self._seed, index]

        def play() -> list[Episode]:
            recorder = Recorder(self._task, len(seeds), steps)
            learner = Learner(self._task, recorder, seeds, key, self._device, self._steps, before, state)
            with contextlib.closing(self._task.make(len(seeds), backend)) as env:
                rollout(env, learner, seeds, steps, observer=learner)
            learner.save(self._path(index))
            return recorder.episodes(seeds, backend)

        episodes = retrying(play)
        for earlier in range(index - 1):
            self._path(earlier).unlink(missing_ok=True)
        return episodes

    def _learn_again(self, index: int) -> None:
        """What a stored flush taught, where that is lost: it is played once more."""
        flush = Flush(self._store.flush_path(index))
        self.record(index, flush.renderer, [int(seed) for seed in flush.seeds], int(flush.lengths.max()))

    def finish(self) -> None:
        """Remove what was learnt."""
        for path in self._store.directory.glob("rainbow-*.safetensors"):
            path.unlink()

    def _path(self, index: int) -> Path:
        return self._store.directory / f"rainbow-{index:05d}.safetensors"
