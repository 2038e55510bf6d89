"""Makes the vector environments of tasks, by backend, and keeps them for the next episodes."""

import importlib.util
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from worldmodels.core.errors import UserError
from worldmodels.execution.envpool_env import EnvPoolVectorEnv
from worldmodels.execution.process_env import ProcessVectorEnv
from worldmodels.tasks.base import ArrayWorld, EnvPoolWorld, ProcessWorld, Task, check_backend


def make_envs(task: Task, num_envs: int, backend: str) -> VectorEnv:
    """A vector environment of ``num_envs`` copies of a task. Rows that have ended stay frozen until the next reset.

    Raises :class:`UserError` for fewer than one environment, a backend that the task does not have, packages that are
    missing, and an environment with autoreset.
    """
    if num_envs < 1:
        raise UserError(f"expected at least 1 environment, got {num_envs}")
    check_backend(task, backend)
    world = task.worlds[backend]
    observation = spaces.Box(0, 255, task.observation_shape, np.uint8)
    if isinstance(world, ArrayWorld):
        return _without_autoreset(task, world.make(num_envs))
    if isinstance(world, EnvPoolWorld):
        assert isinstance(task.action_space, spaces.Box)
        return EnvPoolVectorEnv(world.env_id, num_envs, observation, task.action_space, task.max_steps)
    check_packages(task, world)
    for hook in (world.prepare, world.cleanup):
        if hook is not None:
            hook()
    if world.check is not None:
        world.check(num_envs)
    options: dict[str, Any] = dict(world.options)
    return ProcessVectorEnv(
        world.env_id, num_envs, observation, task.action_space, make_options=options, when_closed=world.cleanup
    )


def _without_autoreset(task: Task, env: VectorEnv) -> VectorEnv:
    mode = env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.DISABLED:
        env.close()
        problem = "its metadata names no autoreset_mode" if mode is None else f"its autoreset_mode is {mode}"
        raise UserError(
            f"expected a vector environment of {task.name} with autoreset disabled, so that every recorded transition "
            f'is real, but {problem}; its metadata must hold "autoreset_mode": AutoresetMode.DISABLED'
        )
    return env


def check_packages(task: Task, world: ProcessWorld) -> None:
    """Raise :class:`UserError` if a module that a world needs is not installed."""
    missing = [package for package in world.requires if importlib.util.find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise UserError(f'{task.name} needs {names}, not installed here; pip install "worldmodels[{world.extra}]"')


class Environments:
    """Keeps the vector environment that was made last for reuse, because worker processes take seconds to start.

    It ends with :meth:`close`, or when this object is garbage-collected.
    """

    def __init__(self) -> None:
        self._key: tuple[Task, int, str] | None = None
        self._env: VectorEnv | None = None

    def of(self, task: Task, num_envs: int, backend: str) -> VectorEnv:
        """A vector environment, which the caller must reset: the kept one if it was made with the same arguments."""
        same = self._key is not None and self._key[0] is task and self._key[1:] == (num_envs, backend)
        if self._env is None or not same:
            self.close()
            self._env, self._key = make_envs(task, num_envs, backend), (task, num_envs, backend)
        return self._env

    def close(self) -> None:
        """Close the kept environment."""
        if self._env is not None:
            self._env.close()
            self._env = None
