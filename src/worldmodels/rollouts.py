"""The loop that runs policies in vector environments, to collect, evolve, evaluate and record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.core import interrupt
from worldmodels.tasks.base import Observations, Policy, Task


class Observer(Protocol):
    """Receives every transition, in order. The next step may overwrite the observations: copy those to keep."""

    def start(self, observations: Observations) -> None:
        """Receive the observations of all N rows after the reset."""
        ...

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        """Receive a transition of ``rows`` (n,): rewards and whether the world ended the episode are (n,) each."""
        ...


@dataclass(frozen=True)
class Rollouts:
    """The results of N episodes.

    returns (N,) float64; lengths (N,) int64, in steps; terminated (N,) bool: True if the world ended the episode, False
    if a limit did.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray

    @property
    def steps(self) -> int:
        """Total number of environment steps."""
        return int(self.lengths.sum())


def rollout(
    task: Task,
    env: VectorEnv,
    policy: Policy,
    seeds: Sequence[int],
    max_steps: int,
    patience: int | None = None,
    observer: Observer | None = None,
) -> Rollouts:
    """Play one episode per environment, all rows stepping together; stop when every row is done.

    Rows that ended are neither simulated nor encoded. ``patience`` ends a row that has had no positive reward for that
    many steps, which saves most of the time of early evolution; an environment with a method ``retire`` then stops
    simulating the row. The observer is told which rows the world ended, but not which ones a limit ended.
    """
    raw, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]
    observations = Observations(task, raw)
    if observer is not None:
        observer.start(observations)
    count = env.num_envs
    returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
    terminated = np.zeros(count, dtype=bool)
    last_gain = np.full(count, -1, dtype=np.int64)
    actions = np.zeros(env.action_space.shape or (count,), dtype=env.action_space.dtype)
    rows = np.arange(count)
    retire = getattr(env, "retire", None)
    for step in range(max_steps):
        interrupt.check()
        chosen = policy.act(observations, rows)
        actions[rows] = chosen
        raw, rewards, ended, cut, _ = env.step(actions)
        observations = Observations(task, raw if len(rows) == count else raw[rows])
        returns[rows] += rewards[rows]
        lengths[rows] += 1
        terminated[rows] = ended[rows]
        if observer is not None:
            observer.step(rows, chosen, rewards[rows], ended[rows], observations)
        last_gain[rows[rewards[rows] > 0]] = step
        running = ~(ended[rows] | cut[rows])
        if patience is not None:
            running &= step - last_gain[rows] < patience
            if retire is not None:
                retire(rows[~running])
        if not running.all():
            rows, observations = rows[running], observations.of(running)
        if not len(rows):
            break
    return Rollouts(returns, lengths, terminated)
