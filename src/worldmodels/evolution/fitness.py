"""Fitness of controllers: in the real world, in dreams (``dream_fitness.py``), or divided between several of these."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class FinishedFitness(Fitness, Protocol):
    """Fitness that can also tell which episodes reached the task's goal."""

    def with_finished(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int, np.ndarray]:
        """The returns (N, E) and the steps in total, as from a call, and which episodes were finished, (N, E) bool."""
        ...


class WorldFitness:
    """Fitness in the real world: every controller plays every episode, in batches of environments."""

    def __init__(self, executor: Executor, agent: Agent, backend: str) -> None:
        self._executor, self._agent, self._backend = executor, agent, backend

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) and the total number of steps."""
        played = self._played(controllers, seeds, steps, patience)
        return played.returns.reshape(len(controllers), len(seeds)), played.steps

    def with_finished(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int, np.ndarray]:
        """The same, and which episodes reached the goal, (N, E) bool; only for a task with a :attr:`Task.goal`."""
        played, shape = self._played(controllers, seeds, steps, patience), (len(controllers), len(seeds))
        finished = played.facts(self._agent.task)["finished"]
        return played.returns.reshape(shape), played.steps, np.asarray(finished, bool).reshape(shape)

    def _played(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> Rollouts:
        """The N * E episodes: all of the first controller, then all of the second one, and so on."""
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
        return Rollouts.joined(list(self._executor.map(chunks))).of(np.argsort(np.concatenate(parts)))


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
