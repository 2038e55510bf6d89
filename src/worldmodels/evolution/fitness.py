"""Where fitness comes from: episodes in the real world, dreams (``dream_fitness.py``), or several kinds of them."""

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
    """Returns of controllers. Legend: N controllers, P parameters, E episodes."""

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Returns (N, E) float64 of controllers (N, P) on episodes with the given seeds, and the steps that it took.

        steps: longest episode; patience: steps without a positive reward after which an episode ends, None for never.
        """
        ...


class WorldFitness:
    """Every controller plays every episode in the real world, many rows together."""

    def __init__(self, executor: Executor, agent: Agent, backend: str) -> None:
        self._executor, self._agent, self._backend = executor, agent, backend

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Returns (N, E) and steps."""
        everyone, everywhere = np.repeat(controllers, len(seeds), axis=0), list(seeds) * len(controllers)
        # Parts of one size, since environments are kept only for as many again.
        size = -(-len(everyone) // -(-len(everyone) // self._agent.task.max_envs))
        parts = [slice(start, start + size) for start in range(0, len(everyone), size)]
        chunks = [
            partial(_play, self._agent, self._backend, everyone[part], everywhere[part], steps, patience)
            for part in parts
        ]
        results = list(self._executor.map(chunks))
        returns = np.concatenate([result.returns for result in results])
        return returns.reshape(len(controllers), len(seeds)), sum(result.steps for result in results)


def _play(
    agent: Agent,
    backend: str,
    controllers: np.ndarray,
    seeds: Sequence[int],
    steps: int,
    patience: int | None,
    environments: Environments,
) -> Rollouts:
    """One episode per row, each with its own controller."""
    env = environments.of(agent.task, len(controllers), backend)
    policy = agent.policy(len(controllers), torch.from_numpy(controllers.astype(np.float32)))
    return rollout(agent.task, env, policy, seeds, steps, patience)


class SharedFitness:
    """Every controller plays its share of the episodes in each of several kinds of worlds."""

    def __init__(self, kinds: Sequence[Fitness]) -> None:
        self._kinds = kinds

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Returns (N, E) and steps."""
        returns, done = np.zeros((len(controllers), len(seeds))), 0
        for index, fitness in enumerate(self._kinds):
            share = slice(index, None, len(self._kinds))
            if len(seeds[share]):
                returns[:, share], steps_done = fitness(controllers, seeds[share], steps, patience)
                done += steps_done
        return returns, done
