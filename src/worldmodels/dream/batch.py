"""Candidates in their dreams: rows that are advanced together, and what each of them earns.

Legend: N rows, P candidates, Z latent, H hidden.
"""

import copy
from functools import partial
from typing import NamedTuple

from torch import Tensor

from worldmodels.controller.linear import LinearControllers
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.cuda_graph import CudaGraph
from worldmodels.dream.fast.streams import Noise, Numbers


class Rows(NamedTuple):
    """One dream of one candidate in each of N rows.

    alive: whether it goes on, (N,) bool; one that has ended is dreamt on until it is dropped, and earns nothing.
    returns: the sum of rewards so far, (N,) float32; lived: its steps, (N,) int64; place: among all rows, (N,) int64.
    """

    z: Tensor
    h: Tensor
    c: Tensor
    alive: Tensor
    returns: Tensor
    lived: Tensor
    candidate: Tensor
    place: Tensor


class Batch:
    """Rows with what they act by and what they dream by.

    whole: the rows are all those of their candidates, in order.
    """

    def __init__(
        self, dreams: Dreams, controllers: LinearControllers, streams: Noise, rows: Rows, whole: bool = False
    ) -> None:
        self.dreams, self.controllers, self.streams, self.rows, self.whole = dreams, controllers, streams, rows, whole

    def __len__(self) -> int:
        return len(self.rows.z)

    def advance(self, steps: int) -> None:
        """Dream ``steps`` steps; rows that end on the way earn nothing after that."""
        self.rows = self._after(steps)

    def _after(self, steps: int) -> Rows:
        rows = self.rows
        for numbers in self.streams.ahead(steps):
            rows = self._step(rows, numbers)
        return rows

    def _step(self, rows: Rows, numbers: Numbers) -> Rows:
        state = rows.z, rows.h, rows.c
        control = self.dreams.masked(self._controls(self.dreams.inputs(state), rows), rows.z)
        actions = self.dreams.agent.task.dream_action(control)
        state, reward, ended = self.dreams.advance(state, actions, numbers)
        returns = rows.returns + reward.masked_fill(~rows.alive, 0.0)
        return Rows(*state, rows.alive & ~ended, returns, rows.lived + rows.alive, rows.candidate, rows.place)

    def _controls(self, inputs: Tensor, rows: Rows) -> Tensor:
        return self.controllers.shared(inputs, rows.candidate)

    def keep(self, some: Tensor) -> "Batch":
        """A batch of the rows ``some`` (n,) only."""
        streams = copy.copy(self.streams)
        streams.keep(some)
        return Batch(self.dreams, self.controllers, streams, Rows(*(one[some] for one in self.rows)))


class StandingBatch(Batch):
    """A batch whose tensors, taken from another, stay where they are: a GPU records ``every`` steps, then replays."""

    def __init__(self, batch: Batch, every: int) -> None:
        super().__init__(batch.dreams, batch.controllers, batch.streams, batch.rows, batch.whole)
        self._every = every
        self._graph = CudaGraph(batch.rows.z.device)

    def fill(self, batch: Batch) -> None:
        """Go on with what ``batch``, of the same shapes, holds."""
        for ours, theirs in zip(_tensors(self), _tensors(batch), strict=True):
            ours.copy_(theirs)

    def advance(self, steps: int) -> None:
        """Dream ``steps`` steps, all at once if there are ``every`` of them."""
        if steps == self._every:
            self._graph(partial(self._in_place, steps))
        else:
            self._in_place(steps)

    def _in_place(self, steps: int) -> None:
        for ours, new in zip(self.rows, self._after(steps), strict=True):
            ours.copy_(new)

    def _controls(self, inputs: Tensor, rows: Rows) -> Tensor:
        return self.controllers.in_order(inputs) if self.whole else super()._controls(inputs, rows)


def shapes(batch: Batch) -> tuple[object, ...]:
    """What two batches have in common that can be recorded as one."""
    return batch.whole, *(one.shape for one in _tensors(batch))


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    assert isinstance(batch.streams, CounterBasedStreams), "numbers that come from the CPU cannot be recorded"
    return *batch.rows, *batch.controllers.tensors(), *batch.streams.tensors()
