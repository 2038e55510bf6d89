"""Actions of any space: made from controls, encoded for M, drawn at random, and named for people."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from worldmodels.tasks.base import ActionSpace
from worldmodels.tasks.gym.facts import MOST_NUMBERS, ActionFacts

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST_NAME = 14


class Actions:
    """The codec of one action space. Legend: N actions, C controls, A numbers that encode an action for M.

    A number of a box is a control, scaled from its bounds to [-1, 1], and encoded likewise. A choice of two is one
    control, whose sign decides, encoded as -1 or 1. A choice of more is a control for each, of which the largest is
    taken, encoded as ones and zeros. A space of several choices has these one after the other.
    """

    def __init__(self, facts: ActionFacts) -> None:
        self._facts, self.is_box = facts, facts.kind == "box"
        self.space = _space(facts)
        self._start = np.array(facts.start, np.int64)
        self._low, self._high = np.array(facts.low, np.float64), np.array(facts.high, np.float64)
        widths = [1 if size <= 2 else size for size in facts.sizes]
        self.size = len(facts.low) if self.is_box else sum(widths)
        """A and C, which are equal."""
        ends = np.cumsum(widths).tolist()
        self._groups = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
        """The controls of every choice."""

    def from_control(self, control: np.ndarray) -> np.ndarray:
        """Actions (N, ...) of the environment for controls (N, C) in [-1, 1]."""
        if self.is_box:
            values = self._low + (np.asarray(control, np.float64) + 1) / 2 * (self._high - self._low)
            return self._shaped(np.clip(values, self._low, self._high))
        chosen = [self._chosen(control[:, group], size) for group, size in self._parts]
        return self._shaped(np.stack(chosen, axis=1) + self._start)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """The numbers (N, A) float32 that encode actions (N, ...) for M."""
        flat = np.asarray(actions).reshape(len(actions), -1)
        if self.is_box:
            return np.asarray(2 * (flat - self._low) / (self._high - self._low) - 1, np.float32)
        choices = flat.astype(np.int64) - self._start
        parts = [_ones(choices[:, index], size) for index, size in enumerate(self._facts.sizes)]
        return np.concatenate(parts, axis=1)

    def encode_control(self, control: "Tensor") -> "Tensor":
        """:meth:`encode` of :meth:`from_control` for controls (N, C), without leaving their device."""
        import torch

        if self.is_box:
            return control.clamp(-1, 1)
        parts = []
        for group, size in self._parts:
            part = control[:, group]
            if size == 1:
                parts.append(torch.full_like(part, -1.0))
            elif size == 2:
                parts.append((part > 0).to(control.dtype) * 2 - 1)
            else:
                best = part.argmax(dim=1, keepdim=True)
                parts.append(torch.zeros_like(part).scatter_(1, best, 1.0))
        return torch.cat(parts, dim=1)

    def draw(self, stream: np.random.Generator) -> np.ndarray:
        """A uniformly random action (...)."""
        if self.is_box:
            return self._one(stream.uniform(self._low, self._high)[None])
        return self._one(np.array([[stream.integers(size) for size in self._facts.sizes]]) + self._start)

    def biased_draw(self, stream: np.random.Generator) -> "Callable[[], np.ndarray]":
        """A function that draws random actions with probabilities that are random themselves."""
        if self.is_box:
            return lambda: self.draw(stream)
        chances = [stream.dirichlet(np.ones(size)) for size in self._facts.sizes]

        def drawn() -> np.ndarray:
            choices = [stream.choice(len(chance), p=chance) for chance in chances]
            return self._one(np.array([choices]) + self._start)

        return drawn

    def nudged(self, actions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Actions (N, ...) of a box, moved by ``noise`` (N, A) times half the width of its bounds."""
        flat = np.asarray(actions, np.float64).reshape(len(actions), -1)
        return self._shaped(np.clip(flat + noise * (self._high - self._low) / 2, self._low, self._high))

    @classmethod
    def of(cls, space: spaces.Space[Any]) -> "Actions":
        """The codec of an action space. Raises ValueError for one that has none, as :func:`action_facts`."""
        return cls(action_facts(space))

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each of the A numbers."""
        facts = self._facts
        if self.is_box:
            return tuple(f"action {index}" if self.size > 1 else "action" for index in range(self.size))
        if facts.kind == "discrete":
            names = [name[:_LONGEST_NAME] for name in facts.names] or [str(index) for index in range(facts.sizes[0])]
            return tuple(names) if facts.sizes[0] > 2 else (" / ".join(names),)
        labels = []
        for index, size in enumerate(facts.sizes):
            labels += [f"{index}"] if size <= 2 else [f"{index}: {choice}" for choice in range(size)]
        return tuple(labels)

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Lowest and highest value of each of the A numbers."""
        signed = (-1.0, 1.0)
        if self.is_box:
            return (signed,) * self.size
        return tuple(one for size in self._facts.sizes for one in ([signed] if size <= 2 else [(0.0, 1.0)] * size))

    @property
    def _parts(self) -> list[tuple[slice, int]]:
        return list(zip(self._groups, self._facts.sizes, strict=True))

    def _chosen(self, control: np.ndarray, size: int) -> np.ndarray:
        if size == 1:
            return np.zeros(len(control), np.int64)
        return np.asarray(control[:, 0] > 0 if size == 2 else control.argmax(axis=1), np.int64)

    def _one(self, flat: np.ndarray) -> np.ndarray:
        """A flat action (1, numbers) in the shape and type of the space, without the first dimension."""
        return np.asarray(self._shaped(flat)[0])

    def _shaped(self, flat: np.ndarray) -> np.ndarray:
        """Flat actions (N, numbers) in the shape and type of the space."""
        actions: np.ndarray = flat.astype(self.space.dtype).reshape(len(flat), *(self.space.shape or ()))
        return actions


def _ones(choices: np.ndarray, size: int) -> np.ndarray:
    """Choices (N,) from 0 as ones and zeros (N, size), or as -1 and 1, (N, 1), if there are at most two."""
    if size <= 2:
        return (2.0 * choices[:, None] - 1).astype(np.float32)
    return np.asarray(choices[:, None] == np.arange(size), np.float32)


def _space(facts: ActionFacts) -> ActionSpace:
    if facts.kind == "discrete":
        return spaces.Discrete(facts.sizes[0], start=facts.start[0])
    if facts.kind == "multi-discrete":
        start = np.array(facts.start, facts.dtype)
        return spaces.MultiDiscrete(np.array(facts.sizes, facts.dtype), dtype=np.dtype(facts.dtype).type, start=start)
    if facts.kind == "multi-binary":
        return spaces.MultiBinary(len(facts.sizes))
    dtype = np.dtype(facts.dtype)
    low, high = (np.array(bound, dtype).reshape(facts.sizes) for bound in (facts.low, facts.high))
    return spaces.Box(low, high, dtype=dtype.type)


def action_facts(space: spaces.Space[Any]) -> ActionFacts:
    """An action space in the words of :class:`ActionFacts`. ValueError, in one line, for one that has no codec."""
    dtype = str(space.dtype)
    if isinstance(space, spaces.Discrete):
        facts = ActionFacts("discrete", (int(space.n),), (int(space.start),), dtype=dtype)
    elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        sizes, start = tuple(map(int, space.nvec)), tuple(map(int, space.start))
        facts = ActionFacts("multi-discrete", sizes, start, dtype=dtype)
    elif isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        bits = int(space.shape[0])
        facts = ActionFacts("multi-binary", (2,) * bits, (0,) * bits, dtype=dtype)
    elif isinstance(space, spaces.Box) and space.dtype in (np.float32, np.float64) and space.shape:
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise ValueError(
                "the bounds of its actions are infinite; give it finite ones, for example by registering it with "
                "gymnasium.wrappers.RescaleAction"
            )
        if not (space.low < space.high).all():
            raise ValueError("the lowest and the highest of some of its actions are equal; leave these out")
        low, high = (tuple(map(float, bound.ravel())) for bound in (space.low, space.high))
        facts = ActionFacts("box", tuple(space.shape), (), low, high, dtype)
    else:
        shown = " ".join(str(space).split())[:80]
        raise ValueError(
            f"its action space is {shown}; expected Discrete, MultiDiscrete or MultiBinary of one dimension, or a Box "
            "of float32 or float64"
        )
    numbers = math.prod(facts.sizes) if facts.kind == "box" else sum(facts.sizes)
    if numbers > MOST_NUMBERS:
        raise ValueError(f"its actions have {numbers:,} choices or numbers, at most {MOST_NUMBERS} are possible")
    return facts
