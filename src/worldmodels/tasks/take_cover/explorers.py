"""Policies that collect Doom TakeCover's episodes: keys held for random times, and interrupted policies."""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations, Policy

_LONGEST_HOLD = 10
"""The random policy holds an action for 1 to this many tics (paper's code)."""
_HOLDS = (4, 300)
"""Bounds of an exploring episode's longest hold, in tics; it is drawn from a log-uniform distribution."""


class HeldKeys:
    """Random actions, each held for 1 to 10 tics, with one random stream per environment.

    diverse: every environment has its own longest hold (4 to 300 tics) and its own probabilities of the three actions.
    """

    def __init__(self, seeds: Sequence[int], diverse: bool = False) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._chances = [stream.dirichlet(np.ones(3)) if diverse else np.full(3, 1 / 3) for stream in self._streams]
        shortest, longest = np.log(_HOLDS)
        self._longest = [
            int(np.exp(stream.uniform(shortest, longest))) if diverse else _LONGEST_HOLD for stream in self._streams
        ]
        self._actions = np.zeros(len(seeds), np.int64)
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The actions that are held, (n,) int64."""
        for row in rows[self._left[rows] == 0].tolist():
            self._actions[row] = self._streams[row].choice(3, p=self._chances[row])
            self._left[row] = self._streams[row].integers(1, self._longest[row] + 1)
        self._left[rows] -= 1
        return np.array(self._actions[rows])


class Interrupted:
    """A policy that is interrupted from time to time: random actions replace its own for 1 to 10 tics."""

    def __init__(self, policy: Policy, seeds: Sequence[int]) -> None:
        self._policy, self._random = policy, HeldKeys(seeds)
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        self._chance = np.array([stream.uniform(0.0, 0.04) for stream in self._streams])
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's actions (n,) int64, or random ones where it is interrupted."""
        chosen = np.array(self._policy.act(observations, rows))
        for row in rows[self._left[rows] == 0].tolist():
            if self._streams[row].random() < self._chance[row]:
                self._left[row] = self._streams[row].integers(1, _LONGEST_HOLD + 1)
        perturbed = self._left[rows] > 0
        if perturbed.any():
            chosen[perturbed] = self._random.act(observations.of(perturbed), rows[perturbed])
            self._left[rows[perturbed]] -= 1
        return chosen
