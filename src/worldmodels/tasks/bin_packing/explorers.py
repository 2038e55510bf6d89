"""Policies that collect bin packing's episodes: rules, random packers, and policies with errors."""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations, Policy, Task
from worldmodels.tasks.bin_packing.rules import Rule


class RulePolicy:
    """A rule as a policy, with one random stream per environment."""

    def __init__(self, rule: Rule, seeds: Sequence[int]) -> None:
        self._rule, self._streams = rule, [np.random.default_rng([seed, 2]) for seed in seeds]

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The levels that the rule chooses, (n,)."""
        return self._rule(observations.raw, _Rows([self._streams[row] for row in rows.tolist()]))


class _Rows:
    """Random numbers of which every row comes from a stream of its own."""

    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        self._streams = streams

    def random(self, size: tuple[int, int]) -> np.ndarray:
        return np.stack([stream.random(size[1]) for stream in self._streams])


class Packer:
    """Random allowed levels, with one random stream per environment.

    careful: every environment has its own preference for fuller or emptier bins and its own rate of uniform choices;
    otherwise all choices are uniform.
    """

    def __init__(self, seeds: Sequence[int], task: Task, careful: bool = False) -> None:
        self._streams, self._task = [np.random.default_rng(seed) for seed in seeds], task
        draw = np.array([stream.random(2) for stream in self._streams])
        # Log-odds of the fullest level against the emptiest one; 0 is uniform.
        self._preference = np.where(careful, 12 * draw[:, 0] - 2, 0.0)
        self._errs = np.where(careful, 0.3 * draw[:, 1] ** 2, 0.0)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Levels (n,) int64, drawn among the allowed ones."""
        allowed = self._task.action_mask(observations.frames)
        assert allowed is not None
        place = np.linspace(0, 1, allowed.shape[1])
        chances = np.stack([self._streams[row].random(allowed.shape[1] + 1) for row in rows.tolist()])
        preference = np.where(chances[:, -1] < self._errs[rows], 0.0, self._preference[rows])
        # Gumbel-max trick: the argmax of logits plus Gumbel noise is a draw from their softmax.
        gumbel = -np.log(-np.log(np.clip(chances[:, :-1], 1e-12, 1 - 1e-12)))
        return np.asarray(np.where(allowed, preference[:, None] * place + gumbel, -np.inf).argmax(axis=1))


class Erring:
    """A policy some of whose choices are replaced by another policy's, at a rate that differs between environments."""

    def __init__(self, policy: Policy, other: Policy, seeds: Sequence[int]) -> None:
        self._policy, self._other = policy, other
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        self._chance = np.array([0.2 * stream.random() ** 2 for stream in self._streams])

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's levels (n,) int64, some of them replaced."""
        chosen, other = self._policy.act(observations, rows), self._other.act(observations, rows)
        errs = np.array([self._streams[row].random() for row in rows.tolist()]) < self._chance[rows]
        return np.where(errs, other, chosen)
