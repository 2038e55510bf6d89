"""Policies that collect episodes of unknown worlds: random actions that are held, and policies that are interrupted."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from worldmodels.tasks.base import Observations, Policy
from worldmodels.tasks.gym.actions import Actions

_LONGEST_HOLD = 32
"""The longest hold of an exploring episode is at most this many steps; it is drawn from a log-uniform distribution."""
_INTERRUPTION = 10
"""An interruption lasts for 1 to this many steps."""
_UNIFORM = 0.25
"""Share of exploring episodes whose choices are equally probable."""


class HeldActions:
    """Random actions, each held for a random number of steps, with one random stream per environment.

    Every episode has its own longest hold and its own probabilities of the choices, so that some move steadily and
    others hardly: what nobody has done, M cannot learn. longest: limits the holds, for short episodes.
    """

    def __init__(self, actions: Actions, seeds: Sequence[int], longest: int = _LONGEST_HOLD) -> None:
        self._actions = actions
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        top = np.log(max(1, min(longest, _LONGEST_HOLD)))
        self._longest = [max(1, round(float(np.exp(stream.uniform(0.0, top))))) for stream in self._streams]
        self._draw = [
            partial(actions.draw, stream) if stream.random() < _UNIFORM else actions.biased_draw(stream)
            for stream in self._streams
        ]
        self._held = np.zeros((len(seeds), *(actions.space.shape or ())), actions.space.dtype)
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The actions that are held, (n, ...)."""
        for row in rows[self._left[rows] == 0].tolist():
            self._held[row] = self._draw[row]()
            self._left[row] = self._streams[row].integers(1, self._longest[row] + 1)
        self._left[rows] -= 1
        return np.array(self._held[rows])


class RandomActions:
    """Uniformly random actions, drawn anew at every step, with one random stream per environment."""

    def __init__(self, actions: Actions, seeds: Sequence[int]) -> None:
        self._actions, self._streams = actions, [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Random actions (n, ...)."""
        return np.stack([self._actions.draw(self._streams[row]) for row in rows.tolist()])


class Interrupted:
    """A policy that holds a random action for a few steps from time to time, at a rate that differs between episodes.

    The numbers of a box also get Gaussian noise, of a strength that differs between episodes.
    """

    def __init__(self, actions: Actions, policy: Policy, seeds: Sequence[int]) -> None:
        self._actions, self._policy = actions, policy
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        draws = np.array([stream.random(2) for stream in self._streams])
        self._chance, self._strength = 0.06 * draws[:, 0], 0.3 * draws[:, 1]
        self._held = np.zeros((len(seeds), *(actions.space.shape or ())), actions.space.dtype)
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's actions (n, ...), or random ones where it is interrupted."""
        chosen = np.array(self._policy.act(observations, rows))
        if self._actions.is_box:
            noise = np.stack([self._streams[row].standard_normal(self._actions.size) for row in rows.tolist()])
            chosen = self._actions.nudged(chosen, noise * self._strength[rows, None])
        for row in rows[self._left[rows] == 0].tolist():
            if self._streams[row].random() < self._chance[row]:
                self._held[row] = self._actions.draw(self._streams[row])
                self._left[row] = self._streams[row].integers(1, _INTERRUPTION + 1)
        interrupted = self._left[rows] > 0
        chosen[interrupted] = self._held[rows[interrupted]]
        self._left[rows[interrupted]] -= 1
        return chosen
