"""Random numbers that belong to a dream's seed: the same ones in whatever batch and beside whatever it is dreamt."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.core.seeds import Stream

Numbers = tuple[Tensor, Tensor, Tensor]
"""Of one step: uniform (N, Z) in [0, 1) and standard normal (N, Z) for the next z, uniform (N,) for the end."""

_CHUNK = 32
"""Steps drawn at a time, since asking each stream for a few numbers would take longer than drawing them."""


class Noise(Protocol):
    """Random numbers of N rows: drawn ahead by NumPy, or computed on the device (``counter_based.py``)."""

    def start(self, starts: int) -> tuple[Tensor, Tensor]:
        """Which of ``starts`` recorded moments each row starts from, (N,), and standard normal numbers (N, Z)."""
        ...

    def replace(self, rows: Sequence[int], seeds: Sequence[int], starts: int) -> tuple[Tensor, Tensor]:
        """Give some rows new seeds, from their beginning; what :meth:`start` would have said of them."""
        ...

    def next(self) -> Numbers:
        """The numbers of the next step."""
        ...

    def ahead(self, steps: int) -> Iterator[Numbers]:
        """The numbers of the next ``steps`` steps."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows ``rows`` (n,) only."""
        ...


class _SeedStream:
    """The numbers of one seed; uniform and normal ones come separately, so that they can be drawn in any portions."""

    def __init__(self, seed: int) -> None:
        self.uniform, self.normal = (
            np.random.Generator(np.random.SFC64([kind, seed])) for kind in (Stream.DREAM_UNIFORM, Stream.DREAM_NORMAL)
        )


class NumpyStreams:
    """One stream per row, or, ``shared``, one per distinct seed.

    Candidates that dream the same dreams share the cost of drawing them, and differ only in what they do.
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
        """Which of ``starts`` recorded moments each row starts from, (N,), and standard normal numbers (N, Z)."""
        which, normal = self._beginning(self._streams, starts)
        return (which, normal) if self._rows is None else (which[self._rows], normal[self._rows])

    def _beginning(self, streams: Sequence[_SeedStream], starts: int) -> tuple[Tensor, Tensor]:
        which = np.array([stream.uniform.integers(starts) for stream in streams], np.int64)
        normal = np.stack([stream.normal.standard_normal(self._latent_size, dtype=np.float32) for stream in streams])
        return torch.from_numpy(which).to(self._device), torch.from_numpy(normal).to(self._device)

    def replace(self, rows: Sequence[int], seeds: Sequence[int], starts: int) -> tuple[Tensor, Tensor]:
        """Give some rows new streams, from their beginning; what :meth:`start` would have said of them."""
        assert self._rows is None, "rows that share streams are not restarted"
        fresh = [_SeedStream(seed) for seed in seeds]
        which, normal = self._beginning(fresh, starts)
        position = self._step % _CHUNK
        for row, stream in zip(rows, fresh, strict=True):
            self._streams[row] = stream
            if position:  # the others are in the middle of a chunk
                self._draw(row, position)
        return which, normal

    def next(self) -> Numbers:
        """The numbers of the next step."""
        step = self._step % _CHUNK
        if step == 0:
            for column in range(len(self._streams)):
                self._draw(column, 0)
        self._step += 1
        # Copied, since the next chunk is drawn into the same place.
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
        """Go on with the rows ``rows`` (n,) only; streams that nobody needs any more are dropped."""
        if self._rows is None:
            kept = rows.cpu()
        else:
            kept, self._rows = torch.unique(self._rows[rows], return_inverse=True)
            kept = kept.cpu()
        self._streams = [self._streams[index] for index in kept.tolist()]
        self._uniform, self._normal = self._uniform[:, kept.numpy()], self._normal[:, kept.numpy()]
