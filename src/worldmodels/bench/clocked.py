"""Policies and environments whose time is measured, and recordings of actions."""

import time
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from worldmodels.tasks.base import Observations, Policy


class Clocked:
    """A policy that adds up its time and its calls."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seconds, self.calls = 0.0, 0

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's actions."""
        began = time.perf_counter()
        actions = self._policy.act(observations, rows)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return actions


class ClockedEnv(VectorWrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """Environments that add up the time of their steps; ``reset_at`` is the time at which the last reset ended."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.seconds, self.reset_at = 0.0, 0.0

    def reset(self, **options: Any) -> Any:
        """Reset, and note the time."""
        result = self.env.reset(**options)
        self.reset_at = time.perf_counter()
        return result

    def step(self, actions: np.ndarray) -> Any:
        """Step, and add up the time."""
        began = time.perf_counter()
        result = self.env.step(actions)
        self.seconds += time.perf_counter() - began
        return result


class Recording:
    """An observer that records the actions of N environments, so that they can be replayed without a policy.

    actions: (N, ...) of every step, zeros in rows that have ended; observations: raw ones (N, ...) after the last step
    in which all rows were running.
    """

    def __init__(self) -> None:
        self.actions: list[np.ndarray] = []
        self.observations = np.empty(0, dtype=np.uint8)

    def start(self, observations: Observations) -> None:
        """Keep the first observations."""
        self.observations = np.array(observations.raw)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        """Keep the actions of the rows ``rows``."""
        all_actions = np.zeros((len(self.observations), *actions.shape[1:]), dtype=actions.dtype)
        all_actions[rows] = actions
        self.actions.append(all_actions)
        if len(rows) == len(self.observations):
            np.copyto(self.observations, after.raw)


def replayed_steps(env: VectorEnv, actions: "list[np.ndarray] | np.ndarray") -> int:
    """Replay recorded actions in environments that were just reset; the number of steps of rows that had not ended."""
    alive, running, steps = np.ones(env.num_envs, dtype=bool), env.num_envs, 0
    for step_actions in actions:
        steps += running
        _, _, ended, cut, _ = env.step(step_actions)
        over = ended | cut
        if over.any():
            alive &= ~over
            running = int(alive.sum())
    return steps
