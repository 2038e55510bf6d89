"""Filling the episode store: whole episodes, aligned, seeded by their number."""

from collections.abc import Callable, Sequence

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.rollouts import Policy, rollout
from worldmodels.storage.episodes import Episode
from worldmodels.tasks import Task
from worldmodels.workers.kept import Kept


class Recorder:
    """Keeps N episodes: the reset frame, and for every step the action, the reward and the frame after it."""

    def __init__(self, task: Task, count: int, steps: int) -> None:
        self._task = task
        self._frames = np.zeros((count, steps + 1, 64, 64, 3), dtype=np.uint8)
        self._actions = np.zeros((count, steps, task.action_size), dtype=np.float32)
        self._rewards = np.zeros((count, steps), dtype=np.float32)
        self._length = np.zeros(count, dtype=np.int64)
        self._terminated = np.zeros(count, dtype=bool)

    def start(self, observations: np.ndarray) -> None:
        """Keep the reset frames."""
        self._frames[:, 0] = self._task.frames(observations)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, seen: np.ndarray
    ) -> None:
        """Keep one transition of the rows ``rows``."""
        now = self._length[rows]
        self._actions[rows, now] = self._task.memory_action(actions)
        self._rewards[rows, now] = rewards
        self._frames[rows, now + 1] = self._task.frames(seen)
        self._terminated[rows] = ended
        self._length[rows] += 1

    @property
    def frames(self) -> np.ndarray:
        """Every frame so far, (N, steps + 1, 64, 64, 3) uint8; not a copy."""
        return self._frames

    @property
    def lengths(self) -> np.ndarray:
        """Steps of every episode so far, (N,) int64; not a copy."""
        return self._length

    def episodes(self, seeds: Sequence[int], renderer: str) -> list[Episode]:
        """What was recorded, one :class:`Episode` per environment."""
        return [
            Episode(
                self._frames[row, : length + 1],
                self._actions[row, :length],
                self._rewards[row, :length],
                bool(self._terminated[row]),
                seeds[row],
                renderer,
            )
            for row, length in enumerate(self._length.tolist())
        ]


def record_episodes(
    kept: Kept, backend: str, policy: Callable[[Sequence[int]], Policy], seeds: Sequence[int], steps: int
) -> list[Episode]:
    """Play one episode of at most ``steps`` per seed, in lockstep, with ``policy(seeds)``, and return them all."""

    def play(env: VectorEnv) -> list[Episode]:
        recorder = Recorder(kept.task, len(seeds), steps)
        rollout(env, policy(seeds), seeds, steps, observer=recorder)
        return recorder.episodes(seeds, backend)

    return kept.retrying(len(seeds), backend, play)
