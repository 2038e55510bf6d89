"""Saving the episodes that people play as data."""

import itertools
from pathlib import Path

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.data.collect import Recorder
from worldmodels.data.episodes import EpisodeStore
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations

_ROW = np.zeros(1, np.int64)


class Recording:
    """Records one episode after the other and adds finished ones to the episode store in ``directory``.

    Raises :class:`UserError` if ``directory`` is a file.
    """

    def __init__(self, task: Task, directory: Path) -> None:
        if directory.exists() and not directory.is_dir():
            raise UserError(f"{directory} is a file; --save expects a directory")
        self.directory, self._task, self._store = directory, task, EpisodeStore(directory)

    def start(self, observations: Observations) -> None:
        """Begin a new episode; an unfinished one is discarded."""
        self._recorder = Recorder(self._task, 1, self._task.max_steps)
        self._recorder.start(observations)

    def step(self, action: np.ndarray, reward: float, terminated: bool, after: Observations) -> None:
        """Record an action, its reward, whether the world ended the episode, and the next observation."""
        self._recorder.step(_ROW, action[None], np.array([reward]), np.array([terminated]), after)

    def save(self, seed: int) -> None:
        """Add the episode to the store, as a shard of its own."""
        index = next(index for index in itertools.count() if not self._store.has(index))
        self._store.write(index, self._recorder.episodes([seed], self._task.reference_backend))
