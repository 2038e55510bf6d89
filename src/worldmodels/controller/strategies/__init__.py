"""Evolution strategies by name, with two methods: ask and tell.

The state of a strategy is not saved. To resume, all recorded fitness is told again to a new strategy with the same
settings, which brings it to the same state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.core.registry import Registry


@dataclass(frozen=True)
class StrategySettings:
    """Settings of a strategy; each strategy uses those that apply to it.

    size: dimensions of the search space; population: candidates per generation; sigma: initial step size; seed, key:
    seed of the random stream; sigma_decay: factor of the step size after every generation, on top of the strategy's own
    adaptation, except after the first ``sigma_hold`` generations; lr, weight_decay: of gradient-based strategies;
    elite_fraction, crossover: of genetic algorithms.
    """

    size: int
    population: int
    sigma: float
    seed: int
    key: tuple[int, ...] = ()
    sigma_decay: float = 1.0
    sigma_hold: int = 0
    lr: float = 0.01
    weight_decay: float = 0.005
    elite_fraction: float = 0.2
    crossover: float = 0.0


class Strategy(Protocol):
    """A search distribution that adapts to the fitness of its candidates, which it maximises.

    Its state depends only on its settings and on the fitness that it was told.
    """

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until :meth:`tell`."""
        ...

    def tell(self, fitness: np.ndarray) -> None:
        """Adapt to the fitness (population,) of the candidates; higher is better, NaN and infinity are the worst."""
        ...

    @property
    def mean(self) -> np.ndarray:
        """The mean (size,) of the distribution, which is validated; of a genetic algorithm, the best candidate."""
        ...

    @property
    def sigma(self) -> float:
        """The step size."""
        ...


STRATEGIES: Registry[Callable[[StrategySettings], Strategy]] = Registry(
    "strategy",
    {
        "cma": "worldmodels.controller.strategies.cma:full",
        "sep-cma": "worldmodels.controller.strategies.cma:separable",
        "pepg": "worldmodels.controller.strategies.pepg:PEPG",
        "openai-es": "worldmodels.controller.strategies.openai_es:OpenAIES",
        "ga": "worldmodels.controller.strategies.ga:GA",
    },
    "worldmodels.strategies",
)
"""All strategies by name; other packages add theirs through the entry point group "worldmodels.strategies"."""


def make_strategy(name: str, settings: StrategySettings) -> Strategy:
    """A new strategy called ``name``, whose distribution has mean zero.

    Raises :class:`UserError` for an unknown name, and for a population below 2 or a search space without dimensions.
    """
    if settings.population < 2 or settings.size < 1:
        raise UserError(
            "expected a population of at least 2 and a search space of at least 1 dimension, got "
            f"{settings.population} and {settings.size}"
        )
    return STRATEGIES.get(name)(settings)
