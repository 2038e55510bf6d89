"""Training V on frames that are streamed from storage."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldmodels.core.errors import UserError
from worldmodels.core.fit import Schedule, fit
from worldmodels.core.seeds import Stream
from worldmodels.vision.base import Vision, images_from_frames, make_vision, rounded_images
from worldmodels.vision.config import VisionConfig

BLOCK = 64
"""Frames that are read together: the chunk size of the episode store."""
_HELD_OUT = 20
"""One block in this many is held out, to measure V on frames on which it was not trained."""
_HELD_OUT_BLOCKS = 64
"""Maximum number of held-out blocks on which V is measured."""


class Shard(Protocol):
    """Stored frames that can be read in parts."""

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        ...

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start`` to ``stop`` (exclusive), (n, 64, 64, 3) uint8."""
        ...


@dataclass(frozen=True)
class _Block:
    shard: int
    start: int


class FrameStream:
    """Shuffled batches of frames from shards that need not fit in memory.

    In every epoch the blocks are permuted; ``window`` blocks at a time are loaded and their frames shuffled together.
    The frames of a step depend on the seed and the step alone, so that a resumed run continues exactly. Frames after
    the last whole block of a shard are not used. Raises :class:`UserError` if there are too few frames for a batch.
    """

    def __init__(self, shards: Sequence[Shard], batch: int, window: int, seed: int) -> None:
        self._shards, self._batch, self._seed = shards, batch, seed
        blocks = [
            _Block(index, start)
            for index, shard in enumerate(shards)
            for start in range(0, shard.num_frames - BLOCK + 1, BLOCK)
        ]
        self.held_out = blocks[_HELD_OUT // 2 :: _HELD_OUT]
        held = set(self.held_out)
        self._blocks = [block for block in blocks if block not in held]
        self._window = min(window, len(self._blocks))
        if self._window * BLOCK < batch:
            raise UserError(
                f"{len(self._blocks) * BLOCK} frames are too few for batches of {batch}; collect more episodes"
            )
        full, rest = divmod(len(self._blocks), self._window)
        sizes = [self._window] * full + ([rest] if rest * BLOCK >= batch else [])
        self._batches_per_window = [size * BLOCK // batch for size in sizes]
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
                frames = self.load([self._blocks[index] for index in chosen])
                stream = np.random.default_rng([self._seed, Stream.FRAME_ORDER, epoch, window])
                shuffle = stream.permutation(len(frames))
                for index in range(skip, count):
                    yield torch.from_numpy(frames[shuffle[index * self._batch : (index + 1) * self._batch]])
                skip = 0
            epoch += 1

    def load(self, blocks: Sequence[_Block]) -> np.ndarray:
        """The frames of some blocks, (n, 64, 64, 3) uint8."""
        frames = np.empty((len(blocks) * BLOCK, 64, 64, 3), dtype=np.uint8)
        for index, block in enumerate(blocks):
            loaded = self._shards[block.shard].frames(block.start, block.start + BLOCK)
            frames[index * BLOCK : (index + 1) * BLOCK] = loaded
        return frames


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
) -> tuple[Vision, dict[str, float]]:
    """Train V (from the weights ``start``, if given) and return it with its loss on held-out frames.

    identity: a text for everything else that the result depends on, such as a digest of the frames. Training continues
    from the checkpoint in ``directory``, if there is one; a checkpoint with other settings, another seed, other numbers
    of frames or another identity is a :class:`UserError`.
    """
    torch.manual_seed(seed)
    vision = make_vision(config.model, config.latent_size).to(device)
    if start is not None:
        vision.load_state_dict(dict(start))
    stream = FrameStream(shards, config.batch, config.window, seed)

    def batches(step: int) -> Iterator[Tensor]:
        return (training_images(frames, device) for frames in stream.batches(step))

    objectives = vision.objectives(config, seed)
    schedule = Schedule(steps=max(1, round(config.epochs * stream.batches_per_epoch)))
    frames = [shard.num_frames for shard in shards]
    about = {"vision": dataclasses.asdict(config), "seed": seed, "frames": frames, "identity": identity}
    fit("vision", objectives, batches, schedule, directory, config.batch, json.dumps(about))
    return vision.eval(), _held_out_loss(vision, stream, config, device)


@torch.no_grad()
def _held_out_loss(vision: Vision, stream: FrameStream, config: VisionConfig, device: torch.device) -> dict[str, float]:
    """Mean loss by named parts; empty if there are too few frames to hold some out."""
    totals: dict[str, float] = {}
    blocks = stream.held_out[:_HELD_OUT_BLOCKS]
    for block in blocks:
        images = images_from_frames(torch.from_numpy(stream.load([block])).to(device))
        for name, value in vision.held_out_loss(images, config).items():
            totals[name] = totals.get(name, 0.0) + value.item() / len(blocks)
    return {f"held_out_{name}": value for name, value in totals.items()}
