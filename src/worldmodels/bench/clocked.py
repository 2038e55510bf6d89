"""Policies and environments that say how long they took."""

import time
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from worldmodels.agent import AgentPolicy


class Clocked:
    """A policy whose time is taken; ``keep`` records its actions and the observations it saw last."""

    def __init__(self, policy: AgentPolicy, keep: bool = False) -> None:
        self._policy, self._keep = policy, keep
        self.seconds, self.calls = 0.0, 0
        self.actions: list[np.ndarray] = []
        self.observations = np.empty(0, dtype=np.uint8)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What the policy does."""
        began = time.perf_counter()
        actions = self._policy.act(observations, rows)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        if self._keep:
            every = np.zeros((self._policy.num_envs, *actions.shape[1:]), dtype=actions.dtype)
            every[rows] = actions
            self.actions.append(every)
            if len(rows) == self._policy.num_envs:
                self.observations = observations
        return actions


class ClockedEnv(VectorWrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Environments whose steps are timed; ``reset_at`` is when the last reset was done."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.seconds, self.reset_at = 0.0, 0.0

    def reset(self, **options: Any) -> Any:
        """Reset, and start the clock."""
        result = self.env.reset(**options)
        self.reset_at = time.perf_counter()
        return result

    def step(self, actions: np.ndarray) -> Any:
        """Step, and add up the time."""
        began = time.perf_counter()
        result = self.env.step(actions)
        self.seconds += time.perf_counter() - began
        return result
