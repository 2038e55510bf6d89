"""Measuring controllers in dreams, all of them at once: what evolution does there, thousands of times faster."""

from collections.abc import Sequence

import numpy as np
import torch

from worldmodels import interrupt
from worldmodels.agent import Agent
from worldmodels.dream.batch import Batch, Candidates, Rows, StandingBatch, shapes
from worldmodels.dream.counted import CountedStreams
from worldmodels.dream.dreams import Dreams

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


class DreamReturns:
    """``measure(controllers (P, size), seeds (E,), steps, patience) -> (returns (P, E), steps)`` in dreams.

    Every controller dreams every seed; patience has no meaning here, since M's reward is never exactly zero.
    dreamer: as in :class:`~worldmodels.dream.dreams.Dreams`.
    """

    def __init__(self, agent: Agent, temperature: float, ends: str, dreamer: Agent | None = None) -> None:
        self._agent = agent
        self._dreams = Dreams(agent, temperature, ends, dreamer=dreamer)
        self._standing: dict[tuple[object, ...], StandingBatch] = {}

    @torch.inference_mode()
    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Returns (P, E) and how many steps were dreamt."""
        device = self._agent.device
        rows = _ROWS if device.type == "cpu" else len(controllers) * len(seeds)
        together = max(1, rows // len(seeds))
        parts, done = [], 0
        for start in range(0, len(controllers), together):
            returns, dreamt = self._part(controllers[start : start + together], seeds, steps)
            parts.append(returns)
            done += dreamt
        return np.concatenate(parts), done

    def _part(self, controllers: np.ndarray, seeds: Sequence[int], steps: int) -> tuple[np.ndarray, int]:
        batch = self._begin(controllers, seeds)
        returns, lived = torch.zeros_like(batch.rows.returns), torch.zeros_like(batch.rows.lived)
        every = _EVERY if self._counted else 1
        for begin in range(0, steps, every):
            interrupt.check()
            batch.advance(min(every, steps - begin))
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

    @property
    def _counted(self) -> bool:
        return self._dreams.noise is CountedStreams

    def _begin(self, controllers: np.ndarray, seeds: Sequence[int]) -> Batch:
        dreams, count = self._dreams, len(controllers)
        parameters = torch.from_numpy(controllers.astype(np.float32)).to(self._agent.device)
        streams = dreams.streams(list(seeds) * count, shared=True)
        z, h, c = dreams.begin(streams)
        place = torch.arange(len(z), device=z.device)
        rows = Rows(
            *(z, h, c),
            alive=torch.ones_like(place, dtype=torch.bool),
            returns=torch.zeros_like(place, dtype=torch.float32),
            lived=torch.zeros_like(place),
            candidate=place // len(seeds),
            place=place,
        )
        return self._settled(Batch(dreams, Candidates(parameters, self._agent), streams, rows, whole=True))

    def _size(self, left: int, size: int) -> int:
        """With how many of ``size`` rows to go on when ``left`` have not ended."""
        if not self._counted:
            return left if left < _FULL * size else size
        # Few sizes, since every one of them is recorded.
        while size // 2 >= max(left, _FEW // 2):
            size //= 2
        return size

    def _settled(self, batch: Batch) -> Batch:
        """The batch, on a GPU in the place of an earlier one of the same shapes, whose record then serves it."""
        if not self._counted:
            return batch
        known = shapes(batch)
        if known in self._standing:
            self._standing[known].fill(batch)
        else:
            if len(self._standing) == _RECORDED:
                del self._standing[next(iter(self._standing))]
            self._standing[known] = StandingBatch(batch, _EVERY)
        return self._standing[known]
