"""Samples of z on which an agent acts, if it does not act on the mean of V's encoding (``controller.acts_on``)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels.core.seeds import Stream


class ActingSamples:
    """Random numbers for N environments, which depend on the seeds of their episodes alone.

    seeds: of the episodes (None: 0, 1, 2 ...). Row i begins with episode i.
    """

    def __init__(self, num_envs: int, seeds: Sequence[int] | None) -> None:
        self._seeds = seeds
        self._streams = [self._stream(episode) for episode in range(num_envs)]

    def _stream(self, episode: int) -> np.random.Generator:
        seed = episode if self._seeds is None else self._seeds[episode]
        return np.random.default_rng([seed, Stream.ACTING])

    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        """The rows ``rows`` (n,) begin the episodes with the indices ``episodes`` (n,)."""
        for row, episode in zip(rows.tolist(), episodes.tolist(), strict=True):
            self._streams[row] = self._stream(episode)

    def draw(self, mu: Tensor, logvar: Tensor, rows: np.ndarray | None) -> Tensor:
        """z (n, Z) from mu and logvar (n, Z) of the rows ``rows`` (n,), None for all."""
        streams = self._streams if rows is None else [self._streams[row] for row in rows.tolist()]
        normal = np.stack([stream.standard_normal(mu.shape[1], np.float32) for stream in streams])
        return mu + torch.exp(logvar / 2) * torch.from_numpy(normal).to(mu.device)
