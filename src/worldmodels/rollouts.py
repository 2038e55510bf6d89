"""The one loop in which policies meet vector environments: collect, evolve, evaluate and record all use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels import interrupt


class Policy(Protocol):
    """Acts for some rows of a vector environment."""

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Environment actions (n, ...) for the observations (n, ...) of the environments ``rows`` (n,)."""
        ...


class Observer(Protocol):
    """Sees every transition, in order. Observations may be overwritten by the next step: copy what is kept."""

    def start(self, observations: np.ndarray) -> None:
        """The reset observations (N, ...) of all rows."""
        ...

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, seen: np.ndarray
    ) -> None:
        """What the rows ``rows`` (n,) did, got (n,), whether the world ended (n,), and what they saw next (n, ...)."""
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
    env: VectorEnv,
    policy: Policy,
    seeds: Sequence[int],
    max_steps: int,
    patience: int | None = None,
    observer: Observer | None = None,
) -> Rollouts:
    """Play one episode per environment in lockstep; stop when every row is done.

    Rows that ended are neither stepped nor encoded. ``patience`` ends a row that has had no positive reward for that
    many steps, which saves most of the time of early evolution; an environment that can ``retire`` rows then stops
    simulating them.
    """
    observations, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]
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
        chosen = policy.act(_of(observations, rows), rows)
        actions[rows] = chosen
        observations, rewards, ended, cut, _ = env.step(actions)
        returns[rows] += rewards[rows]
        lengths[rows] += 1
        terminated[rows] = ended[rows]
        if observer is not None:
            observer.step(rows, chosen, rewards[rows], ended[rows], _of(observations, rows))
        last_gain[rows[rewards[rows] > 0]] = step
        running = ~(ended[rows] | cut[rows])
        if patience is not None:
            running &= step - last_gain[rows] < patience
            if retire is not None:
                retire(rows[~running])
        rows = rows[running]
        if not len(rows):
            break
    return Rollouts(returns, lengths, terminated)


def _of(observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The observations of some rows; not copied when these are all of them."""
    return observations if len(rows) == len(observations) else observations[rows]
