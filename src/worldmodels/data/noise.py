"""How an agent plays the episodes of later rounds: with the task's noise, with less of it, or in some without any."""

import math
from collections.abc import Sequence

import numpy as np
from gymnasium import spaces

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, Policy


def check_noise(task: Task, strength: float) -> None:
    """Raise :class:`UserError` for a strength below 1 in a task whose actions are not continuous."""
    space = task.action_space
    if strength < 1 and not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
        raise UserError(
            f"--collect.later-noise must be 1 for {task.name}, whose actions are not continuous, got {strength:g}; "
            "--collect.later-noise-free leaves the noise out of some episodes"
        )


def noise_free_episodes(seeds: Sequence[int], fraction: float) -> frozenset[int]:
    """The seeds of a shard whose episodes have no noise: this fraction, rounded down, evenly spread."""
    return frozenset(
        seed for index, seed in enumerate(seeds) if math.floor((index + 1) * fraction) > math.floor(index * fraction)
    )


class Perturbed:
    """An agent with the noise of its task, weaker by a factor, and without any in some episodes.

    agent: plays one row per seed; strength: from 0 to 1, which multiplies the difference that the noise makes to an
    action; noise_free: the seeds of episodes that have none. The other episodes are the same whichever have none.
    """

    def __init__(self, agent: Agent, seeds: Sequence[int], strength: float, noise_free: frozenset[int]) -> None:
        self._own = _Remembered(agent.policy(len(seeds), seeds=seeds))
        self._noisy = agent.task.perturbed(self._own, seeds)
        self._strength, self._free = strength, np.array([seed in noise_free for seed in seeds])

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Environment actions (n, ...)."""
        actions, own = np.array(self._noisy.act(observations, rows)), self._own.last
        if self._strength < 1:
            actions = (own + self._strength * (actions - own)).astype(actions.dtype)
        free = self._free[rows]
        actions[free] = own[free]
        return actions


class _Remembered:
    """A policy that remembers its last actions."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self.last = policy, np.zeros(0)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        actions = self._policy.act(observations, rows)
        self.last = np.array(actions)
        return actions
