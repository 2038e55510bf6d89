"""OpenAI's evolution strategy (Salimans et al. 2017): gradient ascent on the expected fitness of a normal distribution
with equal step sizes in all dimensions, by its mean.

Samples are mirrored (antithetic), ranks replace fitness, and Adam takes the steps. In the paper, the step size is
constant, which is ``sigma_decay`` 1.
"""

import numpy as np
import torch

from worldmodels.controller.strategies import StrategySettings
from worldmodels.controller.strategies.ranks import centred_ranks
from worldmodels.controller.strategies.schedule import step_size
from worldmodels.core.seeds import Stream


class OpenAIES:
    """OpenAI's strategy, maximising. Its candidates depend only on its settings and on the fitness that it was told.

    lr: Adam's learning rate for the mean; weight_decay: this times the mean is subtracted from the gradient of the
    expected rank (-0.5 to 0.5); sigma_decay: factor of the step size after every generation except the first
    ``sigma_hold``. In an odd population, the last candidate is the mean itself, from which no gradient follows.
    """

    def __init__(self, settings: StrategySettings) -> None:
        self._settings, self._generation = settings, 0
        self._pairs, self._odd = divmod(settings.population, 2)
        self._stream = np.random.default_rng([settings.seed, Stream.OPENAI_ES, *settings.key])
        self._mean = torch.zeros(settings.size, dtype=torch.float64)
        self._adam = torch.optim.Adam([self._mean], lr=settings.lr, maximize=True)
        self._drawn: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """The mean (size,) of the distribution."""
        return self._mean.numpy().copy()

    @property
    def sigma(self) -> float:
        """The step size."""
        return step_size(self._settings, self._generation)

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until :meth:`tell`."""
        steps = self.sigma * self._noise()
        return np.asarray(self.mean + np.concatenate([steps, -steps, np.zeros((self._odd, len(self.mean)))]))

    def _noise(self) -> np.ndarray:
        if self._drawn is None:
            self._drawn = self._stream.standard_normal((self._pairs, len(self.mean)))
        return self._drawn

    def tell(self, fitness: np.ndarray) -> None:
        """Adapt to the fitness (population,) of the candidates; higher is better, NaN and infinity are the worst."""
        ranks = centred_ranks(fitness)[: 2 * self._pairs]
        gradient = antithetic_gradient(ranks, self._noise(), self.sigma) - self._settings.weight_decay * self.mean
        self._mean.grad = torch.from_numpy(gradient)
        self._adam.step()
        self._generation += 1
        self._drawn = None


def antithetic_gradient(values: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
    """The gradient (size,) of the expected value by the mean, estimated from mirrored samples.

    values (2 * pairs,): of mean + sigma * noise, then of mean - sigma * noise; noise (pairs, size): standard normal.
    """
    pairs = len(noise)
    return np.asarray((values[:pairs] - values[pairs:]) @ noise / (2 * pairs * sigma))
