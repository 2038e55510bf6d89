"""Who plays the first games of Doom TakeCover: keys held for random times, and policies that are interrupted."""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations, Policy

_LONGEST_HOLD = 10
"""An action of the random policy is held for 1 to so many tics (paper's code)."""
_HOLDS = (4, 300)
"""Longest holds of exploring episodes, the shortest and the longest of them; short ones are as common as long ones."""


class HeldKeys:
    """Keys that are redrawn after 1 to 10 tics, one random stream per environment.

    diverse: every environment has its own longest hold, up to a whole game, and its own chances of keys.
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
        """The keys that are held, (n,)."""
        for row in rows[self._left[rows] == 0].tolist():
            self._actions[row] = self._streams[row].choice(3, p=self._chances[row])
            self._left[row] = self._streams[row].integers(1, self._longest[row] + 1)
        self._left[rows] -= 1
        return np.array(self._actions[rows])


class Interrupted:
    """A policy whose actions are now and then replaced by a random one for some tics."""

    def __init__(self, policy: Policy, seeds: Sequence[int]) -> None:
        self._policy, self._random = policy, HeldKeys(seeds)
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        self._chance = np.array([stream.uniform(0.0, 0.04) for stream in self._streams])
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's keys (n,), some of them replaced."""
        chosen = np.array(self._policy.act(observations, rows))
        for row in rows[self._left[rows] == 0].tolist():
            if self._streams[row].random() < self._chance[row]:
                self._left[row] = self._streams[row].integers(1, _LONGEST_HOLD + 1)
        perturbed = self._left[rows] > 0
        if perturbed.any():
            chosen[perturbed] = self._random.act(observations.of(perturbed), rows[perturbed])
            self._left[rows[perturbed]] -= 1
        return chosen
