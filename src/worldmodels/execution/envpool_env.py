"""EnvPool's native environments as a Gymnasium vector environment that never resets by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.core.cores import usable_cores
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import row_seeds


class EnvPoolVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N environments of one EnvPool id, stepped together by its C++ threads.

    A row that has ended is not stepped any more: it keeps its last observation, with reward 0 and both flags False,
    until the next reset, so that every recorded transition is real and no time is spent on the row. ``reset`` takes
    one seed per environment, or one integer from which they are derived; since EnvPool fixes seeds when a pool is
    built, every reset builds a new pool. Raises :class:`UserError` where EnvPool is not installed.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        observation: spaces.Box,
        action: spaces.Box,
        max_steps: int,
        threads: int | None = None,
    ) -> None:
        """threads: None for one per core."""
        try:
            import envpool
        except ImportError:
            raise UserError(
                'the backend "envpool" needs the package envpool; pip install "worldmodels[envpool]", '
                "or choose the backend gymnasium, which is slower"
            ) from None
        self._make = envpool.make
        self._env_id, self._max_steps = env_id, max_steps
        self._threads = min(num_envs, threads or usable_cores())
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space = batch_space(observation, num_envs)
        self.action_space = batch_space(action, num_envs)
        self._pool: Any = None
        self._alive = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """First observations (N, ...) of new episodes, and an empty info."""
        seeds = row_seeds(seed, self.num_envs)
        self._pool = None  # free the old pool's threads before the new ones start
        self._pool = self._make(
            self._env_id,
            env_type="gymnasium",
            num_envs=self.num_envs,
            num_threads=self._threads,
            env_seed=seeds,
            max_episode_steps=self._max_steps,
        )
        observations, _ = self._pool.reset()
        self._observations = np.array(observations)
        self._alive[:] = True
        return self._observations, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the rows that are still running; ``actions`` (N, A) holds a row for every environment."""
        rows = np.flatnonzero(self._alive).astype(np.int32)
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminated = np.zeros(self.num_envs, dtype=bool)
        truncated = np.zeros(self.num_envs, dtype=bool)
        if len(rows):
            action = np.ascontiguousarray(np.asarray(actions, dtype=np.float32)[rows])
            observations, reward, end, cut, _ = self._pool.step(action, rows)
            if len(rows) == self.num_envs:
                self._observations = observations  # a new array from EnvPool every time: no need to copy megabytes
            else:
                if not self._observations.flags.writeable:
                    self._observations = self._observations.copy()
                self._observations[rows] = observations
            rewards[rows], terminated[rows], truncated[rows] = reward, end, cut
            self._alive[rows] = ~(end | cut)
        return self._observations, rewards, terminated, truncated, {}

    def retire(self, rows: np.ndarray) -> None:
        """Freeze the rows ``rows``, which are not needed any more, as if they had ended, until the next reset."""
        self._alive[rows] = False

    def close_extras(self, **kwargs: Any) -> None:
        """Release the pool and its threads."""
        self._pool = None
