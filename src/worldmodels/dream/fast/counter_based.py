"""Random numbers computed where the dream is, each from its seed, its step and its place alone."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels.dream.fast.streams import Numbers

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_STEPS, _BEGINNING = 0, 1
"""What numbers are for: steps, or the moment at which a dream begins."""
_CHUNK = 32
"""Steps computed at a time: a few hundred small operations cost about as much for one step as for many."""
_AT_ONCE = 1 << 16
"""Most steps of all seeds together that are computed at a time, which bounds the memory that it takes."""

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Every tensor is int64 and holds words in [0, 2**32); counter and key broadcast.
    """
    a, b, c, d = counter
    low, high = key
    for _ in range(_ROUNDS):
        # Products wrap around as int64, and their 64 bits are still those of the unsigned product.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = (second >> 32 & _WORD) ^ b ^ low, (first >> 32 & _WORD) ^ d ^ high
        b, d = second & _WORD, first & _WORD
        low, high = low + _INCREMENTS[0] & _WORD, high + _INCREMENTS[1] & _WORD
    return a, b, c, d


def uniforms(words: Tensor) -> Tensor:
    """Multiples of 2**-24 in [0, 1), float32, from words."""
    return (words >> 8).float() * 2.0**-24


def normals(words: Tensor) -> Tensor:
    """Standard normal float32 numbers, none beyond 6.8, from an even number of words (..., n) (Box and Muller 1958)."""
    first, second = words.chunk(2, dim=-1)
    radius = torch.sqrt(-2 * torch.log(first.float() * 2.0**-32 + 2.0**-33))
    angle = uniforms(second) * (2 * math.pi)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)


class CounterBasedStreams:
    """As :class:`~worldmodels.dream.fast.streams.NumpyStreams`, but nothing is drawn, copied or waited for.

    The numbers are others.
    The state is a seed and a number of steps per stream, on the device, so that :meth:`ahead` can be part of a CUDA
    graph: replaying it goes on with the next steps.
    """

    def __init__(self, seeds: Sequence[int], latent_size: int, device: torch.device, shared: bool = False) -> None:
        chosen = np.asarray(seeds, dtype=np.int64)
        self._rows: Tensor | None = None
        if shared:
            chosen, rows = np.unique(chosen, return_inverse=True)
            self._rows = torch.from_numpy(rows.astype(np.int64)).to(device)
        self._seeds = torch.from_numpy(chosen).to(device)
        self._done = torch.zeros_like(self._seeds)
        self._latent_size = latent_size
        self._ready: list[Numbers] = []

    def tensors(self) -> tuple[Tensor, ...]:
        """What :meth:`ahead` reads and moves on."""
        return (self._seeds, self._done) if self._rows is None else (self._seeds, self._done, self._rows)

    def start(self, starts: int) -> tuple[Tensor, Tensor]:
        """Which of ``starts`` recorded moments each row starts from, (N,), and standard normal numbers (N, Z)."""
        which, normal = self._beginning(self._seeds, starts)
        return (which, normal) if self._rows is None else (which[self._rows], normal[self._rows])

    def _beginning(self, seeds: Tensor, starts: int) -> tuple[Tensor, Tensor]:
        words = self._words(seeds, torch.zeros_like(seeds), _BEGINNING, 1 + self._even)
        return words[:, 0] * starts >> 32, normals(words[:, 1:])[:, : self._latent_size]

    def replace(self, rows: Sequence[int], seeds: Sequence[int], starts: int) -> tuple[Tensor, Tensor]:
        """Give some rows new streams, from their beginning; what :meth:`start` would have said of them."""
        assert self._rows is None, "rows that share streams are not restarted"
        self._done -= self._taken_back()
        places = torch.tensor(rows, dtype=torch.int64, device=self._seeds.device)
        fresh = torch.tensor(seeds, dtype=torch.int64, device=self._seeds.device)
        self._seeds[places], self._done[places] = fresh, torch.zeros_like(fresh)
        return self._beginning(fresh, starts)

    def next(self) -> Numbers:
        """The numbers of the next step."""
        if not self._ready:
            self._ready = list(self.ahead(max(1, min(_CHUNK, _AT_ONCE // len(self._seeds)))))
        return self._ready.pop(0)

    def _taken_back(self) -> int:
        """How many steps were computed that have not come yet; they are forgotten."""
        steps, self._ready = len(self._ready), []
        return steps

    def ahead(self, steps: int) -> Iterator[Numbers]:
        """The numbers of the next ``steps`` steps."""
        at_once = max(1, _AT_ONCE // len(self._seeds))
        for begin in range(0, steps, at_once):
            count = min(at_once, steps - begin)
            number = self._done + torch.arange(count, device=self._done.device)[:, None]
            self._done += count
            words = self._words(self._seeds, number, _STEPS, self._latent_size + 1 + self._even)
            uniform, normal = (
                uniforms(words[..., : self._latent_size + 1]),
                normals(words[..., self._latent_size + 1 :]),
            )
            for u, n in zip(uniform, normal, strict=True):
                if self._rows is not None:
                    u, n = u[self._rows], n[self._rows]
                yield u[:, :-1], n[:, : self._latent_size], u[:, -1]

    @property
    def _even(self) -> int:
        """Words for the normal numbers of one step, which come in pairs."""
        return self._latent_size + self._latent_size % 2

    @staticmethod
    def _words(seeds: Tensor, number: Tensor, purpose: int, count: int) -> Tensor:
        """Words (..., S, count) for seeds (S,) and numbers of steps (..., S)."""
        number = number[..., None]
        blocks = torch.arange(-(-count // 4), device=seeds.device)
        counter = (blocks, number & _WORD, torch.full_like(number, purpose), torch.zeros_like(number))
        words = philox(counter, (seeds[:, None] & _WORD, seeds[:, None] >> 32 & _WORD))
        return torch.stack(words, dim=-1).flatten(-2)[..., :count]

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows ``rows`` (n,) only; streams that are shared are all kept, so that shapes stay."""
        self._done = self._done - self._taken_back()
        if self._rows is None:
            self._seeds, self._done = self._seeds[rows], self._done[rows]
        else:
            self._rows = self._rows[rows]
