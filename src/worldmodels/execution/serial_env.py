"""Gymnasium environments that are stepped in this process, one after the other, as one vector environment.

Used in the worker processes of :mod:`worldmodels.execution.workers`, which work side by side.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from worldmodels.core.errors import UserError
from worldmodels.execution.frozen_rows import FrozenRowsEnv
from worldmodels.execution.process_env import check_id
from worldmodels.execution.process_worker import Activity, Copies, layout_of, one_line
from worldmodels.execution.recover import WorkerDied
from worldmodels.tasks.base import ActionSpace


class SerialVectorEnv(FrozenRowsEnv):
    """Copies of ``gymnasium.make(env_id)``, as many rows as :meth:`resize` asked for last.

    The copies are made at the first reset of their row, and kept. Errors that they raise are :class:`WorkerDied`.
    health: as for :class:`~worldmodels.execution.process_env.ProcessVectorEnv`.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        observation: spaces.Box,
        action: ActionSpace,
        make_options: Mapping[str, Any] | None = None,
        activity: Activity | None = None,
        health: bool = False,
    ) -> None:
        check_id(env_id)
        self._env_id = env_id
        self._copies = Copies(env_id, {"disable_env_checker": True, **(make_options or {})}, activity)
        self._spaces, self._health = (observation, action), health
        self.resize(num_envs)

    def resize(self, num_envs: int) -> None:
        """Change the number of rows; a reset must follow."""
        layout = layout_of(*self._spaces, num_envs, 0, self._health)
        self._set_up(*self._spaces, {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.items()})
        self._was_reset = False

    @property
    def _started(self) -> bool:
        return self._was_reset

    def _reset_rows(self, seeds: Mapping[int, int]) -> None:
        try:
            self._copies.make(seeds)
        except Exception as error:
            raise UserError(f"cannot make the environment {self._env_id}: {one_line(error)}") from error
        self._call(self._copies.reset, seeds.items(), self._arrays)
        self._was_reset = True

    def _step_rows(self) -> None:
        self._call(self._copies.step, np.flatnonzero(self._alive).tolist(), self._arrays)

    def _call(self, command: Callable[..., None], *arguments: Any) -> None:
        try:
            command(*arguments)
        except Exception as error:
            self._alive[:] = False
            raise WorkerDied(f"{self._env_id} raised {type(error).__name__}: {one_line(error)}") from error

    def close_extras(self, **kwargs: Any) -> None:
        """Close all copies."""
        self._alive[:] = False
        self._copies.close()
