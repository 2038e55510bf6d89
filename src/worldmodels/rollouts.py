"""The loop that runs policies in vector environments, to collect, evolve, evaluate and record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.core import interrupt
from worldmodels.tasks.base import Observations, Policy, Task


@runtime_checkable
class Restartable(Policy, Protocol):
    """A policy for which rows can begin other episodes at any time."""

    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        """The rows ``rows`` (n,) begin the episodes with the indices ``episodes`` (n,), by which it may act."""
        ...


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
    if a limit did; last_rewards (N,) float64: the reward of the last step, by which some worlds say how they ended it.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    last_rewards: np.ndarray

    @classmethod
    def joined(cls, parts: "Sequence[Rollouts]") -> "Rollouts":
        """The episodes of all parts, one after the other."""
        names = [item.name for item in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def of(self, episodes: np.ndarray) -> "Rollouts":
        """The results of the episodes with these indices (n,), in their order."""
        return Rollouts(**{item.name: getattr(self, item.name)[episodes] for item in fields(self)})

    def facts(self, task: Task) -> Mapping[str, np.ndarray]:
        """What the task can tell of these episodes, each (N,), by name: see :meth:`Task.episode_facts`."""
        return task.episode_facts(self.returns, self.lengths, self.terminated, self.last_rewards)

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
    """Play one episode per seed, all rows stepping together; stop when every episode is done.

    If there are more seeds than environments, a row that has ended begins with the next seed, for which the environment
    must support Gymnasium's option "reset_mask", and the policy must be a :class:`Restartable`; there can be no
    observer then. Rows that ended are neither simulated nor encoded. ``patience`` ends a row that has had no positive
    reward for that many steps, which saves most of the time of early evolution; an environment with a method ``retire``
    then stops simulating the row. The observer is told which rows the world ended, but not which ones a limit ended.
    """
    count, total = env.num_envs, len(seeds)
    raw, info = env.reset(seed=list(seeds[:count]))  # type: ignore[arg-type]
    observations = Observations(task, raw, info.get("health"))
    if observer is not None:
        assert total == count
        observer.start(observations)
    returns, lengths = np.zeros(total), np.zeros(total, dtype=np.int64)
    terminated, last_rewards = np.zeros(total, dtype=bool), np.zeros(total)
    actions = np.zeros(env.action_space.shape or (count,), dtype=env.action_space.dtype)
    rows, episodes, begun = np.arange(count), np.arange(count), count
    last_gain = np.zeros(count, dtype=np.int64)
    retire = getattr(env, "retire", None)
    while len(rows):
        interrupt.check()
        chosen = policy.act(observations, rows)
        actions[rows] = chosen
        raw, rewards, ended, cut, info = env.step(actions)
        observations = Observations(task, raw, info.get("health"))
        if len(rows) < count:
            observations = observations.of(rows)
        playing = episodes[rows]
        returns[playing] += rewards[rows]
        lengths[playing] += 1
        terminated[playing], last_rewards[playing] = ended[rows], rewards[rows]
        if observer is not None:
            observer.step(rows, chosen, rewards[rows], ended[rows], observations)
        ages = lengths[playing]
        running = ~(ended[rows] | cut[rows]) & (ages < max_steps)
        if patience is not None:
            gained = rewards[rows] > 0
            last_gain[rows[gained]] = ages[gained]
            running &= ages - last_gain[rows] < patience
        if running.all():
            continue
        free = rows[~running]
        if retire is not None:
            retire(free)
        rows, observations = rows[running], observations.of(running)
        fresh = free[: total - begun]
        if len(fresh):
            assert isinstance(policy, Restartable)
            episodes[fresh] = np.arange(begun, begun + len(fresh))
            begun += len(fresh)
            last_gain[fresh] = 0
            raw = _reset_rows(env, fresh, [seeds[episode] for episode in episodes[fresh]])
            policy.begin(fresh, episodes[fresh])
            rows = np.sort(np.concatenate([rows, fresh]))
            observations = Observations(task, raw[rows])
    return Rollouts(returns, lengths, terminated, last_rewards)


def _reset_rows(env: VectorEnv, rows: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Reset some rows; returns the observations of all (N, ...)."""
    mask = np.zeros(env.num_envs, dtype=bool)
    mask[rows] = True
    row_seeds = np.zeros(env.num_envs, dtype=np.int64)
    row_seeds[rows] = seeds
    raw, _ = env.reset(seed=row_seeds.tolist(), options={"reset_mask": mask})  # type: ignore[arg-type]
    return np.asarray(raw)
