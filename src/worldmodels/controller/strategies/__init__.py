"""Evolution strategies by name, behind two calls: ask and tell.

State is never saved: recorded fitness is told again to a strategy with the same seed, which then stands where it stood.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldmodels.core.registry import Registry


@dataclass(frozen=True)
class StrategySettings:
    """What every strategy is made of; each uses what it knows.

    size: coordinates of the search space; population: candidates per generation; sigma: first step size; sigma_decay:
    its factor after every generation from ``sigma_hold`` on, on top of the strategy's own adaptation; lr and
    weight_decay: of strategies that follow a gradient; seed and key: its random stream.
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


class Strategy(Protocol):
    """A distribution of candidates that follows their fitness. Its state is its seed and what it was told."""

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until told."""
        ...

    def tell(self, fitness: np.ndarray) -> None:
        """Fitness (population,) of the candidates asked for, higher is better; NaN and infinity count as the worst."""
        ...

    @property
    def mean(self) -> np.ndarray:
        """Mean of the distribution, (size,)."""
        ...

    @property
    def sigma(self) -> float:
        """Step size."""
        ...


STRATEGIES: Registry[Callable[[StrategySettings], Strategy]] = Registry(
    "strategy",
    {
        "cma": "worldmodels.controller.strategies.cma:full",
        "sep-cma": "worldmodels.controller.strategies.cma:separable",
        "pepg": "worldmodels.controller.strategies.pepg:PEPG",
    },
    "worldmodels.strategies",
)
"""Every strategy by name; other packages add theirs by the entry point group "worldmodels.strategies"."""


def make_strategy(name: str, settings: StrategySettings) -> Strategy:
    """The strategy called ``name``, around zero; an unknown name is a :class:`UserError`."""
    return STRATEGIES.get(name)(settings)
