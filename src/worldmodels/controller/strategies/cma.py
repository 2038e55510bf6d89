"""CMA-ES (Hansen's pycma), with a full or a diagonal covariance matrix."""

import warnings
from typing import Any

import numpy as np

from worldmodels.controller.strategies import StrategySettings
from worldmodels.core.seeds import Stream


def full(settings: StrategySettings) -> "CMAES":
    """CMA-ES with the full covariance matrix."""
    return CMAES(settings, diagonal=False)


def separable(settings: StrategySettings) -> "CMAES":
    """CMA-ES with a diagonal covariance matrix (Ros & Hansen 2008), for many dimensions and few generations."""
    return CMAES(settings, diagonal=True)


class CMAES:
    """CMA-ES that maximises. A new one with the same settings that is told the same fitness has the same state."""

    def __init__(self, settings: StrategySettings, diagonal: bool) -> None:
        self._decay, self._hold = settings.sigma_decay, settings.sigma_hold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycma warns about missing optional packages
            import cma
        stream = np.random.default_rng([settings.seed, Stream.CMA, *settings.key])
        options: dict[str, Any] = {
            "popsize": settings.population,
            "CMA_diagonal": diagonal,
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
            # Our own random stream: by default, pycma seeds and uses NumPy's global one.
            "seed": np.nan,
            "randn": lambda *shape: stream.standard_normal(shape),
        }
        self._strategy = cma.CMAEvolutionStrategy(np.zeros(settings.size), settings.sigma, options)
        self._asked: list[np.ndarray] | None = None

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until :meth:`tell`."""
        if self._asked is None:
            self._asked = self._strategy.ask()
        return np.array(self._asked)

    def tell(self, fitness: np.ndarray) -> None:
        """Adapt to the fitness (population,) of the candidates; higher is better, NaN and infinity are the worst."""
        self.ask()
        finite = np.isfinite(fitness)
        lowest = fitness[finite].min() if finite.any() else 0.0
        cost = -np.where(finite, fitness, lowest - max(1.0, abs(lowest)))
        self._strategy.tell(self._asked, cost.tolist())
        if self._strategy.countiter > self._hold:
            self._strategy.sigma *= self._decay
        self._asked = None

    @property
    def mean(self) -> np.ndarray:
        """The mean (size,) of the distribution."""
        return np.array(self._strategy.mean)

    @property
    def sigma(self) -> float:
        """The step size."""
        return float(self._strategy.sigma)
