"""PEPG: the mean and the step sizes of a normal distribution climb its expected fitness (Sehnke et al. 2010).

With symmetric samples (equations 18 and 20 there), ranks instead of fitness and Adam for the mean, as in Ha's estool.
"""

import numpy as np

_SIGMA_RATE = 0.2
"""How much of its gradient a step size follows."""
_SIGMA_CHANGE = 0.2
"""Largest change of a step size in a generation, as a share of it."""
_SIGMA_LIMIT = 0.02
"""The decay stops here."""
_LR_DECAY, _LR_LIMIT = 0.9999, 0.001
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class PEPG:
    """Maximises; what it asks depends on the seed and the fitness told alone.

    start: (size,) first mean; lr: Adam's step of the mean; weight_decay: what a candidate loses of its rank, which goes
    from -0.5 to 0.5, per mean square of its parameters; decay: factor of the step sizes after every generation from
    ``hold`` on. An odd population holds the mean itself, as its last candidate and as the baseline.
    """

    def __init__(
        self,
        start: np.ndarray,
        population: int,
        sigma: float,
        seed: int,
        lr: float = 0.01,
        weight_decay: float = 0.005,
        decay: float = 1.0,
        hold: int = 0,
    ) -> None:
        self.mean = np.array(start, np.float64)
        self.sigmas = np.full(len(start), float(sigma))
        """The step size of every coordinate, (size,)."""
        self._pairs, self._odd = divmod(population, 2)
        self._lr, self._weight_decay, self._decay, self._hold = lr, weight_decay, decay, hold
        self._stream = np.random.default_rng([seed, 32])
        self._adam = _Adam(len(start))
        self._generation = 0
        self._drawn: np.ndarray | None = None

    def ask(self) -> np.ndarray:
        """Candidates (population, size) of the next generation; the same ones until told."""
        drawn = self._noise()
        return np.asarray(self.mean + np.concatenate([drawn, -drawn, np.zeros((self._odd, len(self.mean)))]))

    def _noise(self) -> np.ndarray:
        if self._drawn is None:
            self._drawn = self.sigmas * self._stream.standard_normal((self._pairs, len(self.mean)))
        return self._drawn

    def tell(self, fitness: np.ndarray) -> None:
        """Fitness (population,) of the candidates asked for, higher is better; NaN and infinity count as the worst."""
        drawn, square = self._noise(), (self.ask() ** 2).mean(axis=1)
        shaped = centred_ranks(fitness) - self._weight_decay * square
        plus, minus = shaped[: self._pairs], shaped[self._pairs : 2 * self._pairs]
        baseline = shaped[-1] if self._odd else shaped.mean()
        along_mean = (plus - minus) / 2 @ drawn
        along_sigma = ((plus + minus) / 2 - baseline) @ ((drawn**2 - self.sigmas**2) / self.sigmas) / self._pairs
        self.mean = self.mean + self._lr * self._adam.direction(along_mean)
        most = _SIGMA_CHANGE * self.sigmas
        self.sigmas = self.sigmas + np.clip(_SIGMA_RATE * along_sigma, -most, most)
        self._generation += 1
        if self._generation > self._hold:
            self.sigmas = np.maximum(self.sigmas * self._decay, np.minimum(self.sigmas, _SIGMA_LIMIT))
        self._lr = max(self._lr * _LR_DECAY, min(self._lr, _LR_LIMIT))
        self._drawn = None

    @property
    def sigma(self) -> float:
        """Root mean square of the step sizes."""
        return float(np.sqrt((self.sigmas**2).mean()))


class _Adam:
    """Kingma & Ba (2015), with steps of length 1 at first."""

    def __init__(self, size: int) -> None:
        self._first, self._second, self._steps = np.zeros(size), np.zeros(size), 0

    def direction(self, gradient: np.ndarray) -> np.ndarray:
        self._steps += 1
        self._first = _BETA1 * self._first + (1 - _BETA1) * gradient
        self._second = _BETA2 * self._second + (1 - _BETA2) * gradient**2
        first, second = self._first / (1 - _BETA1**self._steps), self._second / (1 - _BETA2**self._steps)
        return np.asarray(first / (np.sqrt(second) + _EPSILON))


def centred_ranks(fitness: np.ndarray) -> np.ndarray:
    """Ranks (N,) from -0.5 for the worst to 0.5 for the best; equals share theirs, so that luck of order pulls nowhere.

    NaN and infinity are the worst.
    """
    values = np.where(np.isfinite(fitness), fitness, -np.inf)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = counts.cumsum() - (counts + 1) / 2
    return np.asarray(ranks[place] / (len(values) - 1) - 0.5)
