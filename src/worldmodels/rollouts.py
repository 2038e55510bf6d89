"""The one loop in which policies meet vector environments: collect, evolve, evaluate and record all use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.core import interrupt
from worldmodels.tasks.base import Observations, Policy, Task


class Observer(Protocol):
    """Is told of every transition, in order. Observations may be overwritten by the next step: copy what is kept."""

    def start(self, observations: Observations) -> None:
        """What all N rows observe after the reset."""
        ...

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        """What the rows ``rows`` (n,) did, got (n,), whether the world ended (n,), and what they observe then."""
        ...


@dataclass(frozen=True)
class Rollouts:
    """returns (N,) float64, lengths (N,) int64 steps, terminated (N,) bool: ended by the world, not by a limit."""

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray

    @property
    def steps(self) -> int:
        """Environment steps altogether."""
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

    Rows that ended are neither stepped nor encoded. ``patience`` ends a row that has had no positive reward for that
    many steps, which saves most of the time of early evolution; an environment that can ``retire`` rows then stops
    simulating them.
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
