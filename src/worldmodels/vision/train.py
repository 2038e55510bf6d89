"""Training V on frames that are streamed from storage."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.core.chunks import FRAME_CHUNK
from worldmodels.core.errors import UserError
from worldmodels.core.fit import HeldOut, Schedule, fit
from worldmodels.core.held_out import held_out_episodes
from worldmodels.core.seeds import Stream
from worldmodels.core.settings import without_idle
from worldmodels.vision.base import Vision, images_from_frames, make_vision, rounded_images
from worldmodels.vision.config import LATER, VisionConfig

_HELD_OUT = 20
"""One episode in this many is held out, to measure V on frames that are unlike those on which it was trained."""
_HELD_OUT_PIECES = 64
"""Maximum number of held-out pieces of at most FRAME_CHUNK frames on which V is measured."""
_CHECKED_PIECES, _CHECKED_EVERY = 16, 200
"""The same for measurements during training, and the steps between two of them."""


class Shard(Protocol):
    """Stored frames that can be read in parts."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        ...

    @property
    def lengths(self) -> np.ndarray:
        """The actions of each episode, (E,) int64; an episode has one frame more."""
        ...

    @property
    def terminated(self) -> np.ndarray:
        """1 for each episode that the world ended and 0 for the others, (E,)."""
        ...

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start`` to ``stop`` (exclusive), (n, 64, 64, 3) uint8."""
        ...


class _Piece(NamedTuple):
    """Frames ``start`` to ``stop`` of a shard."""

    shard: int
    start: int
    stop: int


class FrameStream:
    """Shuffled batches of frames from shards that need not fit in memory.

    In every epoch the blocks are permuted; ``window`` blocks at a time are loaded and their frames shuffled together.
    The frames of a step depend on the seed and the step alone, so that a resumed run continues exactly. Frames after
    the last whole block of a shard are not used. Raises :class:`UserError` if there are too few frames for a batch.

    About one frame in twenty is held out (``held_out``), in whole episodes, because neighbouring frames are alike: of
    the episodes i, i + 20, i + 40, ... those that come closest to that share, or of a single episode the last blocks.
    Blocks that hold some of these frames are not trained on. Nothing is held out if too little would be left to train.

    chosen: other episodes to hold out, (E,) bool, if there are any among them. shows_end:
    :attr:`~worldmodels.tasks.base.Task.shows_end`. If it is False, the last frame of an episode that the
    world ended is neither drawn nor held out; a few other frames of the same window are then drawn twice.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        batch: int,
        window: int,
        seed: int,
        shows_end: bool = True,
        chosen: np.ndarray | None = None,
    ) -> None:
        self._shards, self._batch, self._seed = shards, batch, seed
        self._pictures = None if shows_end else [_pictures(shard) for shard in shards]
        blocks = [
            _Piece(index, start, start + FRAME_CHUNK)
            for index, shard in enumerate(shards)
            for start in range(0, shard.num_frames - FRAME_CHUNK + 1, FRAME_CHUNK)
        ]
        self.held_out = _held_out(_episodes(shards, shows_end), blocks, chosen)
        touched = {
            (shard, start)
            for shard, at, stop in self.held_out
            for start in range(at // FRAME_CHUNK * FRAME_CHUNK, stop, FRAME_CHUNK)
        }
        self._blocks = [block for block in blocks if (block.shard, block.start) not in touched]
        if min(window, len(self._blocks)) * FRAME_CHUNK < batch:
            self._blocks, self.held_out = blocks, []
        self._window = min(window, len(self._blocks))
        if self._window * FRAME_CHUNK < batch:
            raise UserError(
                f"{len(self._blocks) * FRAME_CHUNK} frames are too few for batches of {batch}; collect more episodes"
            )
        full, rest = divmod(len(self._blocks), self._window)
        sizes = [self._window] * full + ([rest] if rest * FRAME_CHUNK >= batch else [])
        self._batches_per_window = [size * FRAME_CHUNK // batch for size in sizes]
        self.batches_per_epoch = sum(self._batches_per_window)

    def batches(self, step: int) -> Iterator[Tensor]:
        """Endless batches (batch, 64, 64, 3) uint8, starting with the batch of ``step``."""
        epoch, skip = divmod(step, self.batches_per_epoch)
        while True:
            order = np.random.default_rng([self._seed, Stream.FRAME_WINDOWS, epoch]).permutation(len(self._blocks))
            for window, count in enumerate(self._batches_per_window):
                if skip >= count:
                    skip -= count
                    continue
                chosen = order[window * self._window : (window + 1) * self._window]
                blocks = [self._blocks[index] for index in chosen]
                frames = self.load(blocks)
                stream = np.random.default_rng([self._seed, Stream.FRAME_ORDER, epoch, window])
                drawn = self._drawn(blocks)
                # As many batches as if all frames were drawn.
                shuffle = np.resize(drawn[stream.permutation(len(drawn))], len(frames))
                for index in range(skip, count):
                    yield torch.from_numpy(frames[shuffle[index * self._batch : (index + 1) * self._batch]])
                skip = 0
            epoch += 1

    def _drawn(self, pieces: Sequence[_Piece]) -> np.ndarray:
        """The places, among the frames of these pieces, of those that are drawn."""
        if self._pictures is None:
            return np.arange(_size(pieces))
        return np.flatnonzero(np.concatenate([self._pictures[shard][start:stop] for shard, start, stop in pieces]))

    def load(self, pieces: Sequence[_Piece]) -> np.ndarray:
        """The frames of some pieces, (n, 64, 64, 3) uint8."""
        frames = np.empty((_size(pieces), 64, 64, 3), dtype=np.uint8)
        done = 0
        for shard, start, stop in pieces:
            frames[done : done + stop - start] = self._shards[shard].frames(start, stop)
            done += stop - start
        return frames


def _episodes(shards: Sequence[Shard], shows_end: bool) -> list[_Piece]:
    """Every episode of all shards, without last frames that show nothing."""
    pieces = []
    for index, shard in enumerate(shards):
        stops = np.cumsum(shard.lengths + 1)
        starts = np.concatenate([[0], stops[:-1]])
        shown = stops if shows_end else stops - shard.terminated.astype(np.int64)
        pieces += [_Piece(index, start, stop) for start, stop in zip(starts.tolist(), shown.tolist(), strict=True)]
    return pieces


def _pictures(shard: Shard) -> np.ndarray:
    """Which frames of a shard (F,) bool are not the last ones of episodes that the world ended."""
    pictures = np.ones(shard.num_frames, bool)
    pictures[np.cumsum(shard.lengths + 1)[shard.terminated == 1] - 1] = False
    return pictures


def _held_out(episodes: Sequence[_Piece], blocks: Sequence[_Piece], chosen: np.ndarray | None) -> list[_Piece]:
    """The frames to hold out, in pieces of at most FRAME_CHUNK frames."""
    if len(episodes) == 1:
        last = blocks[-max(1, round(len(blocks) / _HELD_OUT)) :]
        return [_Piece(shard, start, min(stop, episodes[0].stop)) for shard, start, stop in last]
    whole: Sequence[_Piece]
    if chosen is not None and chosen.any():
        whole = [episodes[index] for index in np.flatnonzero(chosen).tolist()]
    else:
        choices = [episodes[first::_HELD_OUT] for first in range(min(_HELD_OUT, len(episodes)))]
        wanted = _size(episodes) / _HELD_OUT
        whole = min(choices, key=lambda choice: abs(_size(choice) - wanted))
    return [
        _Piece(shard, at, min(at + FRAME_CHUNK, stop))
        for shard, start, stop in whole
        for at in range(start, stop, FRAME_CHUNK)
    ]


def _size(pieces: Sequence[_Piece]) -> int:
    return sum(stop - start for _, start, stop in pieces)


def training_images(frames: Tensor, device: torch.device) -> Tensor:
    """Frames (B, 64, 64, 3) uint8 as images (B, 3, 64, 64) for V's objectives: on ``device``, float32, rounded."""
    return rounded_images(frames.to(device)).float()


def train_vision(
    shards: Sequence[Shard],
    config: VisionConfig,
    seed: int,
    device: torch.device,
    directory: Path,
    start: Mapping[str, Tensor] | None = None,
    identity: str = "",
    shows_end: bool = True,
    held_out_seed: int = 0,
) -> tuple[Vision, dict[str, float]]:
    """Train V (from the weights ``start``, if given) and return it with its loss on held-out frames.

    shows_end: that of the task; if it is False, the last frames of episodes that the world ended are left out;
    held_out_seed: decides which episodes are held out, if the settings say how many;
    identity: a text for everything else that the result depends on, such as a digest of the frames. Training continues
    from the checkpoint in ``directory``, if there is one; a checkpoint with other settings, another seed, other numbers
    of frames or another identity is a :class:`UserError`.
    """
    torch.manual_seed(seed)
    vision = make_vision(config.model, config.latent_size).to(device)
    if start is not None:
        vision.load_state_dict(dict(start))
    episodes = sum(len(shard.lengths) for shard in shards)
    chosen = held_out_episodes(episodes, config.held_out, held_out_seed) if config.held_out else None
    stream = FrameStream(shards, config.batch, config.window, seed, shows_end, chosen)

    def batches(step: int) -> Iterator[Tensor]:
        return (training_images(frames, device) for frames in stream.batches(step))

    objectives = vision.objectives(config, seed)
    schedule = Schedule(steps=max(1, round(config.epochs * stream.batches_per_epoch)))
    frames = [shard.num_frames for shard in shards]
    about: dict[str, Any] = {
        "vision": without_idle(config, LATER),
        "seed": seed,
        "frames": frames,
        "identity": identity,
    }
    about["held_out"] = "episodes"  # a checkpoint of a version that held out blocks does not fit
    if not shows_end:
        about["shows_end"] = False
    if config.held_out:
        about["held_out_seed"] = held_out_seed

    def checked() -> dict[str, float]:
        training = vision.training
        vision.eval()
        places = np.linspace(0, len(stream.held_out) - 1, min(_CHECKED_PIECES, len(stream.held_out)))
        pieces = [stream.held_out[place] for place in places.round().astype(int).tolist()]
        losses = _held_out_loss(vision, stream, pieces, config, device)
        vision.train(training)
        return losses

    held_out = HeldOut(checked, tuple(checked()), _CHECKED_EVERY) if config.held_out and stream.held_out else None
    fit("vision", objectives, batches, schedule, directory, config.batch, json.dumps(about), held_out=held_out)
    losses = _held_out_loss(vision.eval(), stream, stream.held_out[:_HELD_OUT_PIECES], config, device)
    return vision, {f"held_out_{name}": value for name, value in losses.items()}


@torch.no_grad()
def _held_out_loss(
    vision: Vision, stream: FrameStream, pieces: Sequence[_Piece], config: VisionConfig, device: torch.device
) -> dict[str, float]:
    """Mean loss over the frames of some pieces by named parts; empty if there are none."""
    totals: dict[str, float] = {}
    for piece in pieces:
        images = images_from_frames(torch.from_numpy(stream.load([piece])).to(device))
        for name, value in vision.held_out_loss(images, config).items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(images) / _size(pieces)
    return totals
