"""PEPG, parameter-exploring policy gradients (Sehnke et al. 2010): gradient ascent on the expected fitness of a normal
distribution, by its mean and its step sizes.

Uses symmetric samples (equations 18 and 20 of the paper) and, as in Ha's estool, ranks instead of fitness and Adam for
the mean.
"""

import numpy as np
import torch

from worldmodels.controller.strategies import StrategySettings
from worldmodels.controller.strategies.ranks import centred_ranks
from worldmodels.core.seeds import Stream

_SIGMA_RATE = 0.2
"""Learning rate of the step sizes."""
_SIGMA_CHANGE = 0.2
"""Largest change of a step size in a generation, as a fraction of the step size."""
_SIGMA_LIMIT = 0.02
"""Step size at which the decay stops."""
_LR_DECAY, _LR_LIMIT = 0.9999, 0.001
"""Factor of Adam's learning rate after every generation, and the rate at which this decay stops."""


class PEPG:
    """PEPG that maximises. Its candidates depend only on its settings and on the fitness that it was told.

    lr: Adam's learning rate for the mean; weight_decay: a candidate's rank (-0.5 to 0.5) is reduced by this times the
    mean square of its parameters; sigma_decay: factor of the step sizes after every generation except the first
    ``sigma_hold``. In an odd population, the last candidate is the mean itself, and its rank is the baseline.
    """

    def __init__(self, settings: StrategySettings) -> None:
        self.sigmas = np.full(settings.size, float(settings.sigma))
        """The step size (size,) of every dimension."""
        self._settings, self._lr = settings, settings.lr
        self._pairs, self._odd = divmod(settings.population, 2)
        self._stream = np.random.default_rng([settings.seed, Stream.PEPG, *settings.key])
        self._mean = torch.zeros(settings.size, dtype=torch.float64)
        self._adam = torch.optim.Adam([self._mean], lr=settings.lr, maximize=True)
        self._generation = 0
        self._drawn: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """The mean (size,) of the distribution."""
        return self._mean.numpy().copy()

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until :meth:`tell`."""
        drawn = self._noise()
        return np.asarray(self.mean + np.concatenate([drawn, -drawn, np.zeros((self._odd, len(self.mean)))]))

    def _noise(self) -> np.ndarray:
        if self._drawn is None:
            self._drawn = self.sigmas * self._stream.standard_normal((self._pairs, len(self.mean)))
        return self._drawn

    def tell(self, fitness: np.ndarray) -> None:
        """Adapt to the fitness (population,) of the candidates; higher is better, NaN and infinity are the worst."""
        drawn, square = self._noise(), (self.ask() ** 2).mean(axis=1)
        shaped = centred_ranks(fitness) - self._settings.weight_decay * square
        plus, minus = shaped[: self._pairs], shaped[self._pairs : 2 * self._pairs]
        baseline = shaped[-1] if self._odd else shaped.mean()
        along_mean = (plus - minus) / 2 @ drawn
        along_sigma = ((plus + minus) / 2 - baseline) @ ((drawn**2 - self.sigmas**2) / self.sigmas) / self._pairs
        for group in self._adam.param_groups:
            group["lr"] = self._lr
        self._mean.grad = torch.from_numpy(along_mean)
        self._adam.step()
        most = _SIGMA_CHANGE * self.sigmas
        self.sigmas = self.sigmas + np.clip(_SIGMA_RATE * along_sigma, -most, most)
        self._generation += 1
        if self._generation > self._settings.sigma_hold:
            self.sigmas = np.maximum(self.sigmas * self._settings.sigma_decay, np.minimum(self.sigmas, _SIGMA_LIMIT))
        self._lr = max(self._lr * _LR_DECAY, min(self._lr, _LR_LIMIT))
        self._drawn = None

    @property
    def sigma(self) -> float:
        """The root mean square of the step sizes."""
        return float(np.sqrt((self.sigmas**2).mean()))
