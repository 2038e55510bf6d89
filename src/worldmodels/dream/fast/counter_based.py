"""Counter-based random numbers, computed on the dream's device from seed, step and position alone."""

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
_STEPS, _BEGINNING, _DROPOUT = 0, 1, 2
"""The purpose of random numbers: the steps of a dream, its start, or its dropout mask."""
_CHUNK = 32
"""Steps computed at a time, because the few hundred small operations take as long for one step as for many."""
_AT_ONCE = 1 << 16
"""Maximum number of seeds times steps that are computed at a time, to limit the memory."""

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Returns four random words for every counter and key, which are broadcast. All tensors are int64 and hold words in
    [0, 2**32).
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
    """Uniform float32 numbers in [0, 1), multiples of 2**-24, from words."""
    return (words >> 8).float() * 2.0**-24


def normals(words: Tensor) -> Tensor:
    """Standard normal float32 numbers, none beyond 6.8, from an even number of words (..., n) (Box and Muller 1958)."""
    first, second = words.chunk(2, dim=-1)
    radius = torch.sqrt(-2 * torch.log(first.float() * 2.0**-32 + 2.0**-33))
    angle = uniforms(second) * (2 * math.pi)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)


class CounterBasedStreams:
    """Random streams as in :class:`~worldmodels.dream.fast.streams.NumpyStreams`, but computed on the device.

    They need no copies and no synchronisation, and give other numbers for the same seeds. The state of a stream is its
    seed and its number of steps, on the device, so that :meth:`ahead` can be part of a CUDA graph: every replay
    continues with the next steps.
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
        """The tensors that :meth:`ahead` reads and updates."""
        return (self._seeds, self._done) if self._rows is None else (self._seeds, self._done, self._rows)

    def start(self, starts: int) -> tuple[Tensor, Tensor]:
        """The index (N,) of each row's start among ``starts`` recorded moments, and standard normal numbers (N, Z)."""
        which, normal = self._beginning(self._seeds, starts)
        return (which, normal) if self._rows is None else (which[self._rows], normal[self._rows])

    def _beginning(self, seeds: Tensor, starts: int) -> tuple[Tensor, Tensor]:
        words = self._words(seeds, torch.zeros_like(seeds), _BEGINNING, 1 + self._even)
        return words[:, 0] * starts >> 32, normals(words[:, 1:])[:, : self._latent_size]

    def replace(self, rows: Sequence[int], seeds: Sequence[int], starts: int) -> tuple[Tensor, Tensor]:
        """Give ``rows`` new streams with these seeds; returns what :meth:`start` returns, for these rows."""
        assert self._rows is None, "rows that share streams are not restarted"
        self._done -= self._taken_back()
        places = torch.tensor(rows, dtype=torch.int64, device=self._seeds.device)
        fresh = torch.tensor(seeds, dtype=torch.int64, device=self._seeds.device)
        self._seeds[places], self._done[places] = fresh, torch.zeros_like(fresh)
        return self._beginning(fresh, starts)

    def dropout(self, size: int, rows: Sequence[int] | None = None) -> Tensor:
        """Uniform numbers (N, size) for dropout masks, of the given ``rows`` alone (None: of all)."""
        assert rows is None or self._rows is None, "rows that share streams are not restarted"
        seeds = self._seeds if rows is None else self._seeds[torch.tensor(rows, device=self._seeds.device)]
        numbers = uniforms(self._words(seeds, torch.zeros_like(seeds), _DROPOUT, size))
        return numbers if self._rows is None else numbers[self._rows]

    def next(self) -> Numbers:
        """The numbers of the next step."""
        if not self._ready:
            self._ready = list(self.ahead(max(1, min(_CHUNK, _AT_ONCE // len(self._seeds)))))
        return self._ready.pop(0)

    def _taken_back(self) -> int:
        """Discard the steps that were computed but not used yet, and return their number."""
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
        """Number of words for the normal numbers of one step, which are computed in pairs."""
        return self._latent_size + self._latent_size % 2

    @staticmethod
    def _words(seeds: Tensor, number: Tensor, purpose: int, count: int) -> Tensor:
        """Random words (..., S, count) for seeds (S,) and the indices (..., S) of their steps."""
        number = number[..., None]
        blocks = torch.arange(-(-count // 4), device=seeds.device)
        counter = (blocks, number & _WORD, torch.full_like(number, purpose), torch.zeros_like(number))
        words = philox(counter, (seeds[:, None] & _WORD, seeds[:, None] >> 32 & _WORD))
        return torch.stack(words, dim=-1).flatten(-2)[..., :count]

    def keep(self, rows: Tensor) -> None:
        """Continue with the rows ``rows`` (n,) only; shared streams are all kept, so that shapes do not change."""
        self._done = self._done - self._taken_back()
        if self._rows is None:
            self._seeds, self._done = self._seeds[rows], self._done[rows]
        else:
            self._rows = self._rows[rows]
