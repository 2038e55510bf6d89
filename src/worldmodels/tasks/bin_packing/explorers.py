"""Who packs the first episodes: by chance, more or less carefully, by a rule, and with errors."""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations, Policy, Task
from worldmodels.tasks.bin_packing.rules import Rule


class RulePolicy:
    """A rule with one random stream for all its rows."""

    def __init__(self, rule: Rule, seeds: Sequence[int]) -> None:
        self._rule, self._random = rule, np.random.default_rng(list(seeds))

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The levels that the rule chooses, (n,)."""
        return self._rule(observations.raw, self._random)


class Packer:
    """Chooses allowed levels by chance, one random stream per environment."""

    def __init__(self, seeds: Sequence[int], task: Task, careful: bool = False) -> None:
        self._streams, self._task = [np.random.default_rng(seed) for seed in seeds], task
        draw = np.array([stream.random(2) for stream in self._streams])
        # How much likelier the fullest level is than the emptiest, as an exponent: 0 is uniform.
        self._taste = np.where(careful, 12 * draw[:, 0] - 2, 0.0)
        self._errs = np.where(careful, 0.3 * draw[:, 1] ** 2, 0.0)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Levels (n,), drawn among those that take the item."""
        allowed = self._task.action_mask(observations.frames)
        assert allowed is not None
        place = np.linspace(0, 1, allowed.shape[1])
        chances = np.stack([self._streams[row].random(allowed.shape[1] + 1) for row in rows.tolist()])
        taste = np.where(chances[:, -1] < self._errs[rows], 0.0, self._taste[rows])
        # The largest of log-chance plus Gumbel noise is a draw from the softmax.
        gumbel = -np.log(-np.log(np.clip(chances[:, :-1], 1e-12, 1 - 1e-12)))
        return np.asarray(np.where(allowed, taste[:, None] * place + gumbel, -np.inf).argmax(axis=1))


class Erring:
    """A policy of whose choices some are replaced."""

    def __init__(self, policy: Policy, other: Policy, seeds: Sequence[int]) -> None:
        self._policy, self._other = policy, other
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        self._chance = np.array([0.2 * stream.random() ** 2 for stream in self._streams])

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's levels (n,), some of them replaced."""
        chosen, other = self._policy.act(observations, rows), self._other.act(observations, rows)
        errs = np.array([self._streams[row].random() for row in rows.tolist()]) < self._chance[rows]
        return np.where(errs, other, chosen)
