"""Recording whole episodes: one per seed, played together."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from worldmodels.data.episodes import Episode
from worldmodels.data.growing import GrowingFrames, GrowingNumbers
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, PolicyFor


class Recorder:
    """An observer that records N episodes: the reset frame, and of every step the action, reward and next frame.

    Of tasks with a full_health, the health at every frame is recorded, too.

    count: N; steps: the longest episode. The memory depends on the steps that are recorded, not on ``steps``.
    """

    def __init__(self, task: Task, count: int, steps: int) -> None:
        self.steps, self._task = steps, task
        self._frames = GrowingFrames(count)
        self._actions, self._rewards = GrowingNumbers(count, task.action_size), GrowingNumbers(count)
        self._health: GrowingNumbers | None = None
        self._length = np.zeros(count, dtype=np.int64)
        self._terminated = np.zeros(count, dtype=bool)

    def start(self, observations: Observations) -> None:
        """Record the reset frames."""
        rows = np.arange(len(self._length))
        self._frames.put(rows, self._length, observations.frames)
        if self._task.full_health is not None and observations.health is not None:
            self._health = GrowingNumbers(len(rows))
            self._health.put(rows, self._length, observations.health)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        """Record one transition of each of the rows ``rows`` (n,)."""
        now = self._length[rows]
        self._actions.put(rows, now, self._task.memory_action(actions))
        self._rewards.put(rows, now, rewards)
        self._frames.put(rows, now + 1, after.frames)
        if self._health is not None:
            assert after.health is not None
            self._health.put(rows, now + 1, after.health)
        self._terminated[rows] = ended
        self._length[rows] += 1

    def frames(self, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The frames (n, 64, 64, 3) uint8 of the rows ``rows`` (n,) after so many ``steps`` (n,) of their episodes."""
        return self._frames.at(rows, steps)

    @property
    def lengths(self) -> np.ndarray:
        """How many steps of every episode are recorded, (N,) int64; not a copy."""
        return self._length

    def episodes(self, seeds: Sequence[int], renderer: str) -> list[Episode]:
        """The recorded episodes, one per row; ``seeds``: of the rows, ``renderer``: the backend's name."""
        return [
            Episode(
                self._frames.of(row, length + 1),
                self._actions.of(row, length),
                self._rewards.of(row, length),
                bool(self._terminated[row]),
                seeds[row],
                renderer,
                None if self._health is None else self._health.of(row, length + 1),
            )
            for row, length in enumerate(self._length.tolist())
        ]


def record_episodes(
    executor: Executor, task: Task, backend: str, policy: PolicyFor, seeds: Sequence[int], steps: int
) -> list[Episode]:
    """Play one episode of at most ``steps`` steps per seed, by ``policy(seeds)``; in order of seeds."""
    size = -(-len(seeds) // executor.divide(len(seeds), len(seeds)))
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    chunks = [partial(_record, task, backend, policy, part, steps) for part in parts]
    return [episode for episodes in executor.map(chunks) for episode in episodes]


def _record(
    task: Task, backend: str, policy: PolicyFor, seeds: Sequence[int], steps: int, environments: Environments
) -> list[Episode]:
    env, recorder = environments.of(task, len(seeds), backend), Recorder(task, len(seeds), steps)
    rollout(task, env, policy(seeds), seeds, steps, observer=recorder)
    return recorder.episodes(seeds, backend)
