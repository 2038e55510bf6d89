"""Fitness in dreams: all candidates dream in one batch, which is much faster than playing in the real world."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.core import interrupt
from worldmodels.core.read_only import ReadOnly
from worldmodels.dream.batch import Batch, Rows, StandingBatch, shapes
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.streams import NumpyStreams
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor

_ROWS = 2048
"""Dreams advanced together on a CPU, few enough for their state to stay in its caches."""
_FULL = 0.75
"""On a CPU, ended rows are dropped as soon as fewer than this fraction of the rows are still running."""
_EVERY = 32
"""Steps that a GPU dreams between two checks whether dreams have ended, because a check makes it wait."""
_FEW = 4096
"""Number of rows below which a GPU takes as long for half as many."""
_RECORDED = 12
"""Maximum number of batches, of different shapes, that are kept with their CUDA graphs."""


class DreamFitness:
    """The returns of controllers in dreams; every controller plays the dreams of all seeds.

    The rewards that M predicts fluctuate around zero where there are none. So ``patience`` ends a dream whose rewards
    over so many steps do not add up to more than 0. The other arguments are those of
    :class:`~worldmodels.dream.dreams.Dreams`.
    """

    def __init__(
        self,
        executor: Executor,
        agent: Agent,
        temperature: float,
        termination: str,
        dream_model: Agent | None = None,
        dtype: torch.dtype | None = None,
        streams: type[NumpyStreams] | type[CounterBasedStreams] | None = None,
        dropout: float = 0.0,
    ) -> None:
        self._executor = executor
        self._dreaming = _Dreaming(Dreams(agent, temperature, termination, dtype, streams, dream_model, dropout))

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (N, E) float64, and the total number of dream steps."""
        together = len(controllers) if self._dreaming.on_device else max(1, _ROWS // len(seeds))
        count = -(-len(controllers) // self._executor.divide(len(controllers), together))
        starts = range(0, len(controllers), count)
        chunks = [
            partial(_dream, self._dreaming, controllers[start : start + count], seeds, steps, patience)
            for start in starts
        ]
        results = list(self._executor.map(chunks))
        return np.concatenate([returns for returns, _ in results]), sum(dreamt for _, dreamt in results)


def _dream(
    dreaming: "_Dreaming",
    controllers: np.ndarray,
    seeds: Sequence[int],
    steps: int,
    patience: int | None,
    environments: Environments,
) -> tuple[np.ndarray, int]:
    """The returns (n, E) of some of the controllers, and the number of dream steps; ``environments`` is not used."""
    return dreaming.returns(controllers, seeds, steps, patience)


class _Dreaming(ReadOnly):
    """Runs the dreams of many controllers at once; on a GPU, keeps batches and their CUDA graphs for reuse."""

    def __init__(self, dreams: Dreams) -> None:
        self._dreams = dreams
        self._standing: dict[tuple[object, ...], StandingBatch] = {}

    @property
    def on_device(self) -> bool:
        """Whether random numbers are computed on the device, so that steps need no synchronisation."""
        return self._dreams.noise is CounterBasedStreams

    @torch.inference_mode()
    def returns(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """The returns (n, E) of controllers (n, P) in dreams with the given seeds, and the number of dream steps."""
        batch = self._started(controllers, seeds, patience)
        returns, lived = torch.zeros_like(batch.rows.returns), torch.zeros_like(batch.rows.lived)
        every = _EVERY if self.on_device else 1
        for done in range(0, steps, every):
            interrupt.check()
            batch.advance(min(every, steps - done))
            left = int(batch.rows.alive.sum())
            if left == 0:
                break
            size = self._size(left, len(batch))
            if size < len(batch):
                returns[batch.rows.place], lived[batch.rows.place] = batch.rows.returns, batch.rows.lived
                living_first = torch.argsort(batch.rows.alive.int(), descending=True, stable=True)
                batch = self._settled(batch.keep(living_first[:size]))
        returns[batch.rows.place], lived[batch.rows.place] = batch.rows.returns, batch.rows.lived
        return returns.view(len(controllers), len(seeds)).double().cpu().numpy(), int(lived.sum())

    def _started(self, controllers: np.ndarray, seeds: Sequence[int], patience: int | None) -> Batch:
        dreams, count = self._dreams, len(controllers)
        parameters = torch.from_numpy(controllers.astype(np.float32))
        streams = dreams.streams(list(seeds) * count, shared=True)
        z, h, c, *course = dreams.start(streams)
        place = torch.arange(len(z), device=z.device)
        rows = Rows(
            *(z, h, c),
            alive=torch.ones_like(place, dtype=torch.bool),
            returns=torch.zeros_like(place, dtype=torch.float32),
            lived=torch.zeros_like(place),
            candidate=place // len(seeds),
            place=place,
            recent=torch.zeros_like(place, dtype=torch.float32),
            course=tuple(course),
        )
        controllers_of_rows = dreams.controllers(parameters)
        return self._settled(Batch(dreams, controllers_of_rows, streams, rows, whole=True, patience=patience))

    def _size(self, left: int, size: int) -> int:
        """The number of rows with which to continue a batch of ``size`` rows, ``left`` of which have not ended."""
        if not self.on_device:
            return left if left < _FULL * size else size
        # Only a few different sizes, because a CUDA graph is recorded for each.
        while size // 2 >= max(left, _FEW // 2):
            size //= 2
        return size

    def _settled(self, batch: Batch) -> Batch:
        """The batch; on a GPU, copied into a kept batch of the same shapes, whose CUDA graph is used again."""
        if not self.on_device:
            return batch
        key = shapes(batch)
        if key in self._standing:
            self._standing[key].fill(batch)
        else:
            if len(self._standing) == _RECORDED:
                del self._standing[next(iter(self._standing))]
            self._standing[key] = StandingBatch(batch, _EVERY)
        return self._standing[key]
