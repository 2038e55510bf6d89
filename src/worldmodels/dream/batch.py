"""Batches of dreams: the dreams of many candidates, advanced together, and their returns.

Legend: N rows, P candidates, Z latent, H hidden.
"""

import copy
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple, Self

from torch import Tensor

from worldmodels.controller.hidden import Controllers
from worldmodels.controller.linear import LinearControllers
from worldmodels.dream.dreams import Dreams, DreamState
from worldmodels.dream.fast.counter_based import CounterBasedStreams
from worldmodels.dream.fast.cuda_graph import CudaGraph
from worldmodels.dream.fast.streams import Noise, Numbers


class Rows(NamedTuple):
    """N rows, each of which is one dream of one candidate.

    z, h, c, course: its state, as in :data:`DreamState`; alive: whether it is still running, (N,) bool (a row that has
    ended is advanced without rewards until it is dropped); returns: the sum of its rewards so far, (N,) float32; lived:
    its steps so far, (N,) int64; candidate: its candidate, from 0, (N,) int64; place: its index in the first batch,
    (N,) int64; recent: the sum of its rewards since patience was last tested, (N,) float32.
    """

    z: Tensor
    h: Tensor
    c: Tensor
    alive: Tensor
    returns: Tensor
    lived: Tensor
    candidate: Tensor
    place: Tensor
    recent: Tensor
    course: tuple[Tensor, ...] = ()

    @property
    def state(self) -> DreamState:
        """The state of the dreams."""
        return self.z, self.h, self.c, *self.course

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, those of the course last."""
        return *self[:-1], *self.course

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Self:
        """The rows that hold these :attr:`tensors`."""
        given = tuple(tensors)
        count = len(cls._fields) - 1
        return cls._make([*given[:count], given[count:]])


class Batch:
    """Rows with their controllers and their random streams.

    whole: whether no row was dropped, so that every candidate has equally many rows, in order of the candidates;
    first_size: number of rows before any was dropped (None: as many as now); patience: a row whose rewards over so many
    steps do not add up to more than 0 ends, which is tested every so many steps (None: never).
    """

    def __init__(
        self,
        dreams: Dreams,
        controllers: Controllers,
        streams: Noise,
        rows: Rows,
        whole: bool = False,
        first_size: int | None = None,
        patience: int | None = None,
    ) -> None:
        self.dreams, self.controllers, self.streams, self.rows, self.whole = dreams, controllers, streams, rows, whole
        self.first_size = len(rows.z) if first_size is None else first_size
        self.patience = patience

    def __len__(self) -> int:
        return len(self.rows.z)

    def advance(self, steps: int) -> None:
        """Dream ``steps`` steps; a row earns no rewards after its end."""
        self.rows = self._after(steps)

    def _after(self, steps: int) -> Rows:
        rows = self.rows
        for numbers in self.streams.ahead(steps):
            rows = self._step(rows, numbers)
        return rows

    def _step(self, rows: Rows, numbers: Numbers) -> Rows:
        control = self.dreams.masked(self._controls(self.dreams.inputs(rows.state), rows), rows.z)
        actions = self.dreams.task.dream_action(control)
        (z, h, c, *course), reward, ended = self.dreams.advance(rows.state, actions, numbers)
        earned, lived = reward.masked_fill(~rows.alive, 0.0), rows.lived + rows.alive
        alive, recent = rows.alive & ~ended, rows.recent
        if self.patience is not None:
            recent = recent + earned
            tested = lived % self.patience == 0
            alive, recent = alive & ~(tested & (recent <= 0)), recent.masked_fill(tested, 0.0)
        return Rows(z, h, c, alive, rows.returns + earned, lived, rows.candidate, rows.place, recent, tuple(course))

    def _controls(self, inputs: Tensor, rows: Rows) -> Tensor:
        if isinstance(self.controllers, LinearControllers):
            return self.controllers.shared(inputs, rows.candidate)
        # Copying the weights of a hidden layer for every row would take longer than M's step. Every row is put back in
        # its first place instead, where the rows of a candidate stand together, among zeros for those that are gone.
        every = inputs.new_zeros(self.first_size, inputs.shape[1]).index_copy(0, rows.place, inputs)
        return self.controllers.in_order(every)[rows.place]

    def keep(self, kept: Tensor) -> "Batch":
        """A batch of the rows ``kept`` (n,) only."""
        streams = copy.copy(self.streams)
        streams.keep(kept)
        rows = Rows.of(tensor[kept] for tensor in self.rows.tensors)
        return Batch(self.dreams, self.controllers, streams, rows, first_size=self.first_size, patience=self.patience)


class StandingBatch(Batch):
    """A batch, made from another one, that is updated in place, so that a GPU can replay ``every`` steps as a graph."""

    def __init__(self, batch: Batch, every: int) -> None:
        super().__init__(
            batch.dreams,
            batch.controllers,
            batch.streams,
            batch.rows,
            batch.whole,
            batch.first_size,
            batch.patience,
        )
        self._every = every
        self._graph = CudaGraph(batch.rows.z.device)

    def fill(self, batch: Batch) -> None:
        """Copy the contents of ``batch``, which has the same shapes, into this batch."""
        for ours, theirs in zip(_tensors(self), _tensors(batch), strict=True):
            ours.copy_(theirs)

    def advance(self, steps: int) -> None:
        """Dream ``steps`` steps, with a CUDA graph if there are ``every`` of them."""
        if steps == self._every:
            self._graph(partial(self._in_place, steps))
        else:
            self._in_place(steps)

    def _in_place(self, steps: int) -> None:
        for ours, new in zip(self.rows.tensors, self._after(steps).tensors, strict=True):
            ours.copy_(new)

    def _controls(self, inputs: Tensor, rows: Rows) -> Tensor:
        return self.controllers.in_order(inputs) if self.whole else super()._controls(inputs, rows)


def shapes(batch: Batch) -> tuple[object, ...]:
    """A key that is equal for two batches if they can use the same CUDA graph."""
    return batch.whole, batch.first_size, batch.patience, *(tensor.shape for tensor in _tensors(batch))


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    assert isinstance(batch.streams, CounterBasedStreams), "random numbers from the CPU cannot be recorded"
    return *batch.rows.tensors, *batch.controllers.tensors(), *batch.streams.tensors()
