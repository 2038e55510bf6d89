"""Candidates in their dreams: rows that are advanced together, and what each of them earns.

Legend: N rows, P candidates, Z latent, H hidden, F features, C controls.
"""

import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.dream.counted import CountedStreams
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.noise import Noise, Numbers
from worldmodels.dream.replayed import Replayed

_ALL_AT_ONCE = 192
"""Controls of all candidates together up to which they are computed for every row, instead of each row's alone."""


class Candidates:
    """P controllers (P, size) acting on rows that each belong to one of them."""

    def __init__(self, parameters: Tensor, agent: Agent) -> None:
        self._controls = agent.task.control_size
        self._bias = parameters[:, : self._controls].contiguous()
        weights = parameters[:, self._controls :].view(len(parameters), -1, self._controls)
        self._weights, self._count = weights.contiguous(), len(parameters)
        # One product for every row with every candidate is cheap while they are few; then each row takes its own.
        self._side_by_side = weights.permute(1, 0, 2).reshape(weights.shape[1], -1).contiguous()

    def tensors(self) -> tuple[Tensor, ...]:
        """What :meth:`act` and :meth:`act_in_order` read."""
        return self._bias, self._weights, self._side_by_side

    def act(self, features: Tensor, candidate: Tensor) -> Tensor:
        """Controls (n, C) in [-1, 1] for features (n, F) of rows that belong to ``candidate`` (n,)."""
        if self._count * self._controls <= _ALL_AT_ONCE:
            every = (features @ self._side_by_side).view(len(features), self._count, self._controls)
            own = every[torch.arange(len(features), device=features.device), candidate]
        else:
            own = torch.bmm(features.unsqueeze(1), self._weights[candidate]).squeeze(1)
        return torch.tanh(own + self._bias[candidate])

    def act_in_order(self, features: Tensor) -> Tensor:
        """The same for rows that are whole and in order, n / P of each candidate: a small product for each of them."""
        own = torch.bmm(features.view(self._count, -1, features.shape[1]), self._weights)
        return torch.tanh(own + self._bias.unsqueeze(1)).view(len(features), self._controls)


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

    def __init__(self, dreams: Dreams, candidates: Candidates, streams: Noise, rows: Rows, whole: bool = False) -> None:
        self.dreams, self.candidates, self.streams, self.rows, self.whole = dreams, candidates, streams, rows, whole

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
        world = rows.z, rows.h, rows.c
        control = self.dreams.only_allowed(self._controls(self.dreams.seen(world), rows), rows.z)
        actions = self.dreams.agent.task.dream_action(control)
        world, reward, ended = self.dreams.advance(world, actions, numbers)
        returns = rows.returns + reward.masked_fill(~rows.alive, 0.0)
        return Rows(*world, rows.alive & ~ended, returns, rows.lived + rows.alive, rows.candidate, rows.place)

    def _controls(self, features: Tensor, rows: Rows) -> Tensor:
        return self.candidates.act(features, rows.candidate)

    def keep(self, some: Tensor) -> "Batch":
        """A batch of the rows ``some`` (n,) only."""
        streams = copy.copy(self.streams)
        streams.keep(some)
        return Batch(self.dreams, self.candidates, streams, Rows(*(one[some] for one in self.rows)))


class StandingBatch(Batch):
    """A batch whose tensors, taken from another, stay where they are: a GPU records ``every`` steps, then replays."""

    def __init__(self, batch: Batch, every: int) -> None:
        super().__init__(batch.dreams, batch.candidates, batch.streams, batch.rows, batch.whole)
        self._every = every
        self._replayed = Replayed(batch.rows.z.device)

    def fill(self, batch: Batch) -> None:
        """Go on with what ``batch``, of the same shapes, holds."""
        for ours, theirs in zip(_tensors(self), _tensors(batch), strict=True):
            ours.copy_(theirs)

    def advance(self, steps: int) -> None:
        """Dream ``steps`` steps, all at once if there are ``every`` of them."""
        if steps == self._every:
            self._replayed(partial(self._in_place, steps))
        else:
            self._in_place(steps)

    def _in_place(self, steps: int) -> None:
        for ours, new in zip(self.rows, self._after(steps), strict=True):
            ours.copy_(new)

    def _controls(self, features: Tensor, rows: Rows) -> Tensor:
        return self.candidates.act_in_order(features) if self.whole else super()._controls(features, rows)


def shapes(batch: Batch) -> tuple[object, ...]:
    """What two batches have in common that can be recorded as one."""
    return batch.whole, *(one.shape for one in _tensors(batch))


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    assert isinstance(batch.streams, CountedStreams), "numbers that come from the CPU cannot be recorded"
    return *batch.rows, *batch.candidates.tensors(), *batch.streams.tensors()
