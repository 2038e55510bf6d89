"""Fitness of controllers: in the real world, in dreams (``dream_fitness.py``), or divided between several of these."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import Rollouts, rollout


class Fitness(Protocol):
    """Computes the returns of controllers. Legend: N controllers, P parameters, E episodes."""

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) float64 of controllers (N, P) on episodes with the given seeds, and the steps in total.

        steps: longest episode; patience: steps without a positive reward after which an episode ends, None for never.
        """
        ...


class WorldFitness:
    """Fitness in the real world: every controller plays every episode, in batches of environments."""

    def __init__(self, executor: Executor, agent: Agent, backend: str) -> None:
        self._executor, self._agent, self._backend = executor, agent, backend

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) and the total number of steps."""
        row_controllers, row_seeds = np.repeat(controllers, len(seeds), axis=0), np.tile(seeds, len(controllers))
        total = len(row_seeds)
        count = self._executor.divide(total, self._agent.task.max_envs)
        # Every chunk gets episodes of all candidates, so that all chunks take about as long; and all but the last get
        # equally many, because some environments can be used again only for as many rows.
        order, size = np.concatenate([np.arange(first, total, count) for first in range(count)]), -(-total // count)
        parts = [order[start : start + size] for start in range(0, total, size)]
        chunks = [
            partial(_play, self._agent, self._backend, row_controllers[part], row_seeds[part].tolist(), steps, patience)
            for part in parts
        ]
        returns, done = np.zeros(total), 0
        for part, result in zip(parts, self._executor.map(chunks), strict=True):
            returns[part] = result.returns
            done += result.steps
        return returns.reshape(len(controllers), len(seeds)), done


def _play(
    agent: Agent,
    backend: str,
    controllers: np.ndarray,
    seeds: Sequence[int],
    steps: int,
    patience: int | None,
    environments: Environments,
) -> Rollouts:
    """One episode per controller."""
    env = environments.of(agent.task, len(controllers), backend, refill=True)
    policy = agent.policy(env.num_envs, torch.from_numpy(controllers.astype(np.float32)), seeds)
    return rollout(agent.task, env, policy, seeds, steps, patience)


class SharedFitness:
    """Divides the episodes between several kinds of fitness; every controller is measured by each of them."""

    def __init__(self, kinds: Sequence[Fitness]) -> None:
        self._kinds = kinds

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) and the total number of steps."""
        returns, done = np.zeros((len(controllers), len(seeds))), 0
        for index, fitness in enumerate(self._kinds):
            share = slice(index, None, len(self._kinds))
            if len(seeds[share]):
                returns[:, share], steps_done = fitness(controllers, seeds[share], steps, patience)
                done += steps_done
        return returns, done
