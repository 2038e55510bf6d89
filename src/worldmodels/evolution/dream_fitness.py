"""Fitness from dreams: all candidates dream at once, thousands of times faster than they could play."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.core import interrupt
from worldmodels.dream.batch import Batch, Rows, StandingBatch, shapes
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.streams import NumpyStreams
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor

_ROWS = 2048
"""Dreams advanced together on a CPU; their state then stays in its caches."""
_FULL = 0.75
"""Rows that have ended are dropped, on a CPU, when fewer than this share goes on."""
_EVERY = 32
"""Steps that a GPU dreams before it is asked whether dreams have ended; asking makes it wait."""
_FEW = 4096
"""Rows below which a GPU takes as long for half of them."""
_RECORDED = 12
"""Batches of different shapes that are held ready for a GPU."""


class DreamFitness:
    """The returns of controllers in dreams; every controller dreams every seed.

    Patience has no meaning here, since M's reward is never exactly zero. dream_model, dtype and streams: as in
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
    ) -> None:
        self._executor = executor
        self._dreaming = _Dreaming(Dreams(agent, temperature, termination, dtype, streams, dream_model))

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Returns (N, E) and how many steps were dreamt."""
        rows = len(controllers) * len(seeds) if self._dreaming.on_device else _ROWS
        together = max(1, rows // len(seeds))
        starts = range(0, len(controllers), together)
        chunks = [
            partial(_dream, self._dreaming, controllers[start : start + together], seeds, steps) for start in starts
        ]
        results = list(self._executor.map(chunks))
        return np.concatenate([returns for returns, _ in results]), sum(dreamt for _, dreamt in results)


def _dream(
    dreaming: "_Dreaming", controllers: np.ndarray, seeds: Sequence[int], steps: int, environments: Environments
) -> tuple[np.ndarray, int]:
    """Returns (n, E) of some of the controllers, and steps; no environment is needed."""
    return dreaming.returns(controllers, seeds, steps)


class _Dreaming:
    """Dreams of many controllers at once, and on a GPU the batches that are held ready for more of them."""

    def __init__(self, dreams: Dreams) -> None:
        self._dreams, self._agent = dreams, dreams.agent
        self._standing: dict[tuple[object, ...], StandingBatch] = {}

    @property
    def on_device(self) -> bool:
        """Whether random numbers are computed on the device, so that it need not be waited for."""
        return self._dreams.noise is CounterBasedStreams

    @torch.inference_mode()
    def returns(self, controllers: np.ndarray, seeds: Sequence[int], steps: int) -> tuple[np.ndarray, int]:
        """Returns (n, E) of controllers (n, P) on dreams with the given seeds, and steps."""
        batch = self._started(controllers, seeds)
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

    def _started(self, controllers: np.ndarray, seeds: Sequence[int]) -> Batch:
        dreams, count = self._dreams, len(controllers)
        parameters = torch.from_numpy(controllers.astype(np.float32)).to(self._agent.device)
        streams = dreams.streams(list(seeds) * count, shared=True)
        z, h, c = dreams.start(streams)
        place = torch.arange(len(z), device=z.device)
        rows = Rows(
            *(z, h, c),
            alive=torch.ones_like(place, dtype=torch.bool),
            returns=torch.zeros_like(place, dtype=torch.float32),
            lived=torch.zeros_like(place),
            candidate=place // len(seeds),
            place=place,
        )
        return self._settled(Batch(dreams, self._agent.controllers(parameters), streams, rows, whole=True))

    def _size(self, left: int, size: int) -> int:
        """With how many of ``size`` rows to go on when ``left`` have not ended."""
        if not self.on_device:
            return left if left < _FULL * size else size
        # Few sizes, since every one of them is recorded.
        while size // 2 >= max(left, _FEW // 2):
            size //= 2
        return size

    def _settled(self, batch: Batch) -> Batch:
        """The batch, on a GPU in the place of an earlier one of the same shapes, whose record then serves it."""
        if not self.on_device:
            return batch
        known = shapes(batch)
        if known in self._standing:
            self._standing[known].fill(batch)
        else:
            if len(self._standing) == _RECORDED:
                del self._standing[next(iter(self._standing))]
            self._standing[known] = StandingBatch(batch, _EVERY)
        return self._standing[known]
