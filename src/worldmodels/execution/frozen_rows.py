"""What vector environments of copies of one Gymnasium environment have in common, wherever the copies are stepped."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.core.errors import UserError
from worldmodels.core.seeds import row_seeds
from worldmodels.tasks.base import ActionSpace

RESET_MASK = "reset_mask"
"""The option of ``reset`` with which Gymnasium's vector environments reset only some rows, (N,) bool."""


class FrozenRowsEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N copies of an environment that never reset by themselves.

    A row that has ended is not stepped any more: it keeps its last observation, with reward 0 and both flags
    False, until the next reset. ``reset`` and ``step`` return the same arrays of observations and of health every time
    and overwrite them. ``reset(options={"reset_mask": mask})`` resets the rows of the mask alone, as Gymnasium's own
    do.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def _set_up(self, observation: spaces.Box, action: ActionSpace, arrays: Mapping[str, np.ndarray]) -> None:
        """arrays: observations, actions, rewards, terminated and truncated of all rows, in this order of steps.

        If there is an array "health", it is part of the info.
        """
        self.num_envs = len(arrays["rewards"])
        self.single_observation_space, self.single_action_space = observation, action
        self.observation_space = batch_space(observation, self.num_envs)
        self.action_space = batch_space(action, self.num_envs)
        self._arrays, self._alive = arrays, np.zeros(self.num_envs, dtype=bool)

    @abstractmethod
    def _reset_rows(self, seeds: Mapping[int, int]) -> None:
        """Reset the copies of some rows, given with their seeds."""

    @abstractmethod
    def _step_rows(self) -> None:
        """Step the copies of the rows that are alive."""

    @property
    @abstractmethod
    def _started(self) -> bool:
        """Whether there has been a reset since the copies were made."""

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """First observations (N, ...) of new episodes, and their info. seed: one per row, or one for all."""
        seeds = row_seeds(seed, self.num_envs)
        rows = np.flatnonzero((options or {}).get(RESET_MASK, np.ones(self.num_envs, dtype=bool))).tolist()
        if len(rows) < self.num_envs and not self._started:
            raise UserError("expected a reset of all rows before one of some rows")
        self._reset_rows({row: seeds[row] for row in rows})
        self._alive[rows] = True
        return self._arrays["observations"], self._info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the rows that are still running; ``actions`` (N, A) holds a row for every environment."""
        arrays, alive = self._arrays, self._alive
        if alive.any():
            np.copyto(arrays["actions"], actions, casting="same_kind")
            self._step_rows()
        elif not self._started:
            raise UserError("expected reset before step: no episode is running")
        # A frozen row still holds the results of its last step.
        rewards = np.where(alive, arrays["rewards"], 0.0)
        terminated, truncated = alive & arrays["terminated"], alive & arrays["truncated"]
        self._alive &= ~(terminated | truncated)
        return arrays["observations"], rewards, terminated, truncated, self._info

    @property
    def _info(self) -> dict[str, Any]:
        return {"health": self._arrays["health"]} if "health" in self._arrays else {}

    def retire(self, rows: np.ndarray) -> None:
        """Freeze the rows ``rows``, which are not needed any more, as if they had ended, until the next reset."""
        self._alive[rows] = False
