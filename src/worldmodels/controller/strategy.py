"""Evolution strategies behind two calls: ``ask() -> candidates``, ``tell(fitness)``. State is resumed by replaying."""

import warnings
from typing import Any, Protocol

import numpy as np

from worldmodels.config import ControllerConfig
from worldmodels.controller.pepg import PEPG


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


def make_strategy(config: ControllerConfig, size: int, seed: int) -> Strategy:
    """The strategy that the settings name, around zero in ``size`` dimensions."""
    start, decay, hold = np.zeros(size), config.sigma_decay, config.sigma_hold
    if config.strategy == "pepg":
        return PEPG(start, config.population, config.sigma, seed, config.lr, config.weight_decay, decay, hold)
    diagonal = -1 if config.strategy == "sep-cma" else config.diagonal
    return CMAES(start, config.population, config.sigma, diagonal, seed, decay, hold)


class CMAES:
    """CMA-ES (Hansen's pycma), maximising. Exactly repeatable: ``tell`` everything again and it stands where it stood.

    start: (size,) first mean; diagonal: generations with a diagonal covariance (separable CMA-ES, Ros & Hansen
    2008) before the full one, -1 for all; decay: factor of the step size after every generation from
    ``hold`` on, on top of what CMA-ES itself makes of it, which in some dozen generations of many parameters is little.
    """

    def __init__(
        self,
        start: np.ndarray,
        population: int,
        sigma: float,
        diagonal: int,
        seed: int,
        decay: float = 1.0,
        hold: int = 0,
    ) -> None:
        self._decay, self._hold = decay, hold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycma warns of optional packages
            import cma
        stream = np.random.default_rng([seed, 31])
        self._randn = lambda *shape: stream.standard_normal(shape)
        options: dict[str, Any] = {
            "popsize": population,
            "CMA_diagonal": True if diagonal < 0 else diagonal,
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
            # A stream of our own: pycma otherwise seeds and uses NumPy's global one.
            "seed": np.nan,
            "randn": self._randn,
        }
        self._strategy = cma.CMAEvolutionStrategy(start, sigma, options)
        self._asked: list[np.ndarray] | None = None

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until told."""
        if self._asked is None:
            # pycma forgets the stream when it changes from the diagonal to the full sampler.
            self._strategy.sm.randn = self._randn
            self._asked = self._strategy.ask()
        return np.array(self._asked)

    def tell(self, fitness: np.ndarray) -> None:
        """Fitness (population,) of the candidates asked for, higher is better; NaN and infinity count as the worst."""
        self.ask()
        known = np.isfinite(fitness)
        low = fitness[known].min() if known.any() else 0.0
        cost = -np.where(known, fitness, low - max(1.0, abs(low)))
        self._strategy.tell(self._asked, cost.tolist())
        if self._strategy.countiter > self._hold:
            self._strategy.sigma *= self._decay
        self._asked = None

    @property
    def mean(self) -> np.ndarray:
        """Mean of the distribution, (size,)."""
        return np.array(self._strategy.mean)

    @property
    def sigma(self) -> float:
        """Step size."""
        return float(self._strategy.sigma)
