"""A simple genetic algorithm (Such et al. 2017): truncation selection, Gaussian mutation and one elite.

The paper evaluates the best ten candidates of a generation again to choose the elite. Here the elite is the best of its
generation, but it takes part in the next one as it is, and there it has to prove itself on other episodes. With
``crossover`` 1, every child has two parents, as in the SimpleGA of Ha's estool.
"""

import numpy as np

from worldmodels.controller.strategies import StrategySettings
from worldmodels.controller.strategies.ranks import finite_or_worst
from worldmodels.controller.strategies.schedule import step_size
from worldmodels.core.seeds import Stream


class GA:
    """A genetic algorithm that maximises. Its candidates depend only on its settings and on the fitness it was told.

    elite_fraction: fraction of a generation, but at least one candidate, that has children; sigma: standard deviation
    of mutations; sigma_decay: its factor after every generation except the first ``sigma_hold``; crossover: fraction of
    children that take each coordinate from one of two parents, at random. The first candidate of a generation is the
    best of the one before, and that of the first generation is zero, from which all others there descend.
    """

    def __init__(self, settings: StrategySettings) -> None:
        self._settings, self._generation = settings, 0
        self._stream = np.random.default_rng([settings.seed, Stream.GA, *settings.key])
        self._parents = np.zeros((1, settings.size))
        self._candidates: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """The best candidate (size,) of the last generation: the mean of a population of different Cs is not a C."""
        return np.array(self._parents[0])

    @property
    def sigma(self) -> float:
        """The standard deviation of mutations."""
        return step_size(self._settings, self._generation)

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until :meth:`tell`."""
        return np.array(self._current())

    def _current(self) -> np.ndarray:
        if self._candidates is None:
            self._candidates = np.concatenate([self._parents[:1], self._children(self._settings.population - 1)])
        return self._candidates

    def _children(self, count: int) -> np.ndarray:
        stream, shape = self._stream, (count, self._settings.size)
        one, other = (self._parents[stream.integers(len(self._parents), size=count)] for _ in range(2))
        mixed = stream.random(count) < self._settings.crossover
        inherited = np.where(mixed[:, None] & (stream.random(shape) < 0.5), other, one)
        return np.asarray(inherited + self.sigma * stream.standard_normal(shape))

    def tell(self, fitness: np.ndarray) -> None:
        """Adapt to the fitness (population,) of the candidates; higher is better, NaN and infinity are the worst."""
        best_first = np.argsort(-finite_or_worst(fitness), kind="stable")
        count = max(1, round(self._settings.elite_fraction * self._settings.population))
        self._parents = self._current()[best_first[:count]]
        self._generation += 1
        self._candidates = None
