"""Makes the vector environments of tasks, by backend, and keeps them for the next episodes."""

import importlib.util
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from worldmodels.core.errors import UserError
from worldmodels.execution.envpool_env import EnvPoolVectorEnv
from worldmodels.execution.process_env import ProcessVectorEnv
from worldmodels.execution.process_worker import Activity
from worldmodels.execution.serial_env import SerialVectorEnv
from worldmodels.tasks.base import ArrayWorld, EnvPoolWorld, ProcessWorld, Task, check_backend

SERIAL_ROWS = 24
"""Most rows that one process plays together and refills. Measured on CarRacing: 8 act at 0.8 times the speed and 48 at
1.05 times, but the last episodes of a chunk then play among empty rows for longer."""


def make_envs(task: Task, num_envs: int, backend: str, activity: Activity | None = None) -> VectorEnv:
    """A vector environment of ``num_envs`` copies of a task. Rows that have ended stay frozen until the next reset.

    It uses all cores, or only this process, with one thread, if ``activity`` is given, which then says what it does.
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
        threads = None if activity is None else 1
        return EnvPoolVectorEnv(world.env_id, num_envs, observation, task.action_space, task.max_steps, threads)
    check_packages(task, world)
    for hook in (world.prepare, world.cleanup):
        if hook is not None:
            hook()
    if world.check is not None:
        world.check(num_envs)
    options: dict[str, Any] = dict(world.options)
    health = task.full_health is not None
    if activity is not None:
        return SerialVectorEnv(world.env_id, num_envs, observation, task.action_space, options, activity, health)
    return ProcessVectorEnv(
        world.env_id,
        num_envs,
        observation,
        task.action_space,
        make_options=options,
        when_closed=world.cleanup,
        health=health,
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
        how = f'pip install "worldmodels[{world.extra}]"' if world.extra else "install the package that contains it"
        raise UserError(f"{task.name} needs {names}, not installed here; {how}")


class Environments:
    """Keeps the vector environment that was made last for reuse, because worker processes take seconds to start.

    It ends with :meth:`close`, or when this object is garbage-collected. activity: as for :func:`make_envs`.
    """

    def __init__(self, activity: Activity | None = None) -> None:
        self._activity = activity
        self._key: tuple[Task, str] | None = None
        self._env: VectorEnv | None = None

    def of(self, task: Task, episodes: int, backend: str, refill: bool = False) -> VectorEnv:
        """A vector environment with a row for every episode, which the caller must reset: the kept one, if it fits.

        refill: whether fewer rows will do, because :func:`~worldmodels.rollouts.rollout` begins the next episode in a
        row that has ended.
        """
        serial = self._activity is not None and isinstance(task.worlds.get(backend), ProcessWorld)
        rows = min(episodes, SERIAL_ROWS) if serial and refill else episodes
        known = self._env is not None and self._key is not None and self._key[0] is task and self._key[1] == backend
        if known and isinstance(self._env, SerialVectorEnv):
            self._env.resize(rows)
        elif not known or self._env is None or self._env.num_envs != rows:
            self.close()
            self._env = make_envs(task, rows, backend, self._activity)
        self._key = task, backend
        return self._env

    def close(self) -> None:
        """Close the kept environment."""
        if self._env is not None:
            self._env.close()
            self._env = None
