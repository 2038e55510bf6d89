"""Random streams of dreams: the numbers of a dream depend on its seed alone, not on the batch that it is part of."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.core.seeds import Stream

Numbers = tuple[Tensor, Tensor, Tensor]
"""Random numbers of one step: uniform (N, Z) and standard normal (N, Z) for the next z, uniform (N,) for the end.

Uniform numbers are in [0, 1).
"""

_CHUNK = 32
"""Steps drawn at a time, because calling every stream for a few numbers takes longer than drawing them."""


class Noise(Protocol):
    """Random streams of N rows: drawn by NumPy, or computed on the device (``counter_based.py``)."""

    def start(self, starts: int) -> tuple[Tensor, Tensor]:
        """The index (N,) of each row's start among ``starts`` recorded moments, and standard normal numbers (N, Z)."""
        ...

    def replace(self, rows: Sequence[int], seeds: Sequence[int], starts: int) -> tuple[Tensor, Tensor]:
        """Give ``rows`` new streams with these seeds; returns what :meth:`start` returns, for these rows."""
        ...

    def dropout(self, size: int, rows: Sequence[int] | None = None) -> Tensor:
        """Uniform numbers (N, size) in [0, 1) for dropout masks, of the given ``rows`` alone (None: of all).

        They follow from the seeds, are the same at every call, and the other numbers do not depend on this call.
        """
        ...

    def next(self) -> Numbers:
        """The numbers of the next step."""
        ...

    def ahead(self, steps: int) -> Iterator[Numbers]:
        """The numbers of the next ``steps`` steps."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Continue with the rows ``rows`` (n,) only."""
        ...


class _SeedStream:
    """The random stream of one seed, with separate generators for uniform and normal numbers.

    Each kind can therefore be drawn in portions of any size.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.uniform, self.normal = (
            np.random.Generator(np.random.SFC64([kind, seed])) for kind in (Stream.DREAM_UNIFORM, Stream.DREAM_NORMAL)
        )


class NumpyStreams:
    """One stream per row or, if ``shared``, one per distinct seed.

    Candidates with the same seeds then get the same random numbers, which are drawn only once.
    """

    def __init__(self, seeds: Sequence[int], latent_size: int, device: torch.device, shared: bool = False) -> None:
        chosen, rows = np.asarray(seeds, dtype=np.int64), np.arange(len(seeds))
        if shared:
            chosen, rows = np.unique(chosen, return_inverse=True)
        self._streams = [_SeedStream(seed) for seed in chosen.tolist()]
        self._latent_size, self._device, self._step = latent_size, device, 0
        self._rows = torch.from_numpy(rows.astype(np.int64)).to(device) if shared else None
        self._uniform = np.empty((_CHUNK, len(chosen), latent_size + 1), np.float32)
        self._normal = np.empty((_CHUNK, len(chosen), latent_size), np.float32)

    def start(self, starts: int) -> tuple[Tensor, Tensor]:
        """The index (N,) of each row's start among ``starts`` recorded moments, and standard normal numbers (N, Z)."""
        which, normal = self._beginning(self._streams, starts)
        return (which, normal) if self._rows is None else (which[self._rows], normal[self._rows])

    def _beginning(self, streams: Sequence[_SeedStream], starts: int) -> tuple[Tensor, Tensor]:
        which = np.array([stream.uniform.integers(starts) for stream in streams], np.int64)
        normal = np.stack([stream.normal.standard_normal(self._latent_size, dtype=np.float32) for stream in streams])
        return torch.from_numpy(which).to(self._device), torch.from_numpy(normal).to(self._device)

    def replace(self, rows: Sequence[int], seeds: Sequence[int], starts: int) -> tuple[Tensor, Tensor]:
        """Give ``rows`` new streams with these seeds; returns what :meth:`start` returns, for these rows."""
        assert self._rows is None, "rows that share streams are not restarted"
        fresh = [_SeedStream(seed) for seed in seeds]
        which, normal = self._beginning(fresh, starts)
        position = self._step % _CHUNK
        for row, stream in zip(rows, fresh, strict=True):
            self._streams[row] = stream
            if position:  # the other rows are in the middle of a chunk
                self._draw(row, position)
        return which, normal

    def dropout(self, size: int, rows: Sequence[int] | None = None) -> Tensor:
        """Uniform numbers (N, size) for dropout masks, of the given ``rows`` alone (None: of all)."""
        assert rows is None or self._rows is None, "rows that share streams are not restarted"
        streams = self._streams if rows is None else [self._streams[row] for row in rows]
        kind = Stream.DREAM_DROPOUT
        drawn = [np.random.Generator(np.random.SFC64([kind, one.seed])).random(size, np.float32) for one in streams]
        numbers = torch.from_numpy(np.stack(drawn)).to(self._device)
        return numbers if self._rows is None else numbers[self._rows]

    def next(self) -> Numbers:
        """The numbers of the next step."""
        step = self._step % _CHUNK
        if step == 0:
            for column in range(len(self._streams)):
                self._draw(column, 0)
        self._step += 1
        # Copied, because the next chunk is drawn into the same buffer.
        uniform = torch.tensor(self._uniform[step], device=self._device)
        normal = torch.tensor(self._normal[step], device=self._device)
        if self._rows is not None:
            uniform, normal = uniform[self._rows], normal[self._rows]
        return uniform[:, :-1], normal, uniform[:, -1]

    def ahead(self, steps: int) -> Iterator[Numbers]:
        """The numbers of the next ``steps`` steps."""
        return (self.next() for _ in range(steps))

    def _draw(self, column: int, position: int) -> None:
        """Fill a column from ``position`` to the end of the chunk."""
        stream, steps = self._streams[column], _CHUNK - position
        self._uniform[position:, column] = stream.uniform.random((steps, self._latent_size + 1), dtype=np.float32)
        self._normal[position:, column] = stream.normal.standard_normal((steps, self._latent_size), dtype=np.float32)

    def keep(self, rows: Tensor) -> None:
        """Continue with the rows ``rows`` (n,) only; streams that no row uses any more are dropped."""
        if self._rows is None:
            kept = rows.cpu()
        else:
            kept, self._rows = torch.unique(self._rows[rows], return_inverse=True)
            kept = kept.cpu()
        self._streams = [self._streams[index] for index in kept.tolist()]
        self._uniform, self._normal = self._uniform[:, kept.numpy()], self._normal[:, kept.numpy()]
