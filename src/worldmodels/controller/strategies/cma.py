"""CMA-ES (Hansen's pycma), with a full or a diagonal covariance."""

import warnings
from typing import Any

import numpy as np

from worldmodels.controller.strategies import StrategySettings
from worldmodels.core.seeds import Stream


def full(settings: StrategySettings) -> "CMAES":
    """CMA-ES with the full covariance."""
    return CMAES(settings, diagonal=False)


def separable(settings: StrategySettings) -> "CMAES":
    """CMA-ES with a diagonal covariance (Ros & Hansen 2008): less to learn in few generations of many parameters."""
    return CMAES(settings, diagonal=True)


class CMAES:
    """CMA-ES, maximising. Exactly repeatable: ``tell`` everything again and it stands where it stood."""

    def __init__(self, settings: StrategySettings, diagonal: bool) -> None:
        self._decay, self._hold = settings.sigma_decay, settings.sigma_hold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycma warns of optional packages
            import cma
        stream = np.random.default_rng([settings.seed, Stream.CMA, *settings.key])
        options: dict[str, Any] = {
            "popsize": settings.population,
            "CMA_diagonal": diagonal,
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
            # A stream of our own: pycma otherwise seeds and uses NumPy's global one.
            "seed": np.nan,
            "randn": lambda *shape: stream.standard_normal(shape),
        }
        self._strategy = cma.CMAEvolutionStrategy(np.zeros(settings.size), settings.sigma, options)
        self._asked: list[np.ndarray] | None = None

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until told."""
        if self._asked is None:
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
