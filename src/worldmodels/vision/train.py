"""Training V on frames streamed from the episode store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldmodels.config import VisionConfig
from worldmodels.device import noise, precision
from worldmodels.errors import UserError
from worldmodels.storage.episodes import Flush
from worldmodels.training import Loss, Schedule, fit
from worldmodels.vision.vae import ConvVAE, images_from_frames, vae_loss

BLOCK = 64
"""Frames read together; also the chunk of the store."""
_HELD_OUT = 20
"""One block in this many is kept for measuring V on frames that it was not trained on."""


@dataclass(frozen=True)
class _Block:
    flush: int
    start: int


class FrameStream:
    """Shuffled batches of frames from flushes that need not fit in memory.

    In every epoch the blocks are permuted; ``window`` blocks at a time are loaded and their frames shuffled among each
    other. Which frames a step sees depends on the seed and the step alone, so that a resumed run goes on exactly.
    """

    def __init__(self, flushes: Sequence[Flush], batch: int, window: int, seed: int) -> None:
        self._flushes, self._batch, self._seed = flushes, batch, seed
        blocks = [
            _Block(index, start)
            for index, flush in enumerate(flushes)
            for start in range(0, flush.num_frames - BLOCK + 1, BLOCK)
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
        """Endless batches (batch, 64, 64, 3) uint8, beginning with that of ``step``."""
        epoch, skip = divmod(step, self.batches_per_epoch)
        while True:
            order = np.random.default_rng([self._seed, 11, epoch]).permutation(len(self._blocks))
            for window, count in enumerate(self._batches_per_window):
                if skip >= count:
                    skip -= count
                    continue
                chosen = order[window * self._window : (window + 1) * self._window]
                frames = self.load([self._blocks[index] for index in chosen])
                shuffle = np.random.default_rng([self._seed, 12, epoch, window]).permutation(len(frames))
                for index in range(skip, count):
                    yield torch.from_numpy(frames[shuffle[index * self._batch : (index + 1) * self._batch]])
                skip = 0
            epoch += 1

    def load(self, blocks: Sequence[_Block]) -> np.ndarray:
        """The frames of some blocks, (n, 64, 64, 3) uint8."""
        frames = np.empty((len(blocks) * BLOCK, 64, 64, 3), dtype=np.uint8)
        for index, block in enumerate(blocks):
            loaded = self._flushes[block.flush].frames(block.start, block.start + BLOCK)
            frames[index * BLOCK : (index + 1) * BLOCK] = loaded
        return frames


def train_vision(
    flushes: Sequence[Flush],
    config: VisionConfig,
    seed: int,
    device: torch.device,
    directory: Path,
    start: Mapping[str, Tensor] | None = None,
) -> tuple[ConvVAE, dict[str, float]]:
    """Train V (from the weights ``start``, if given) and return it with its loss on held-out frames."""
    torch.manual_seed(seed)
    vision = ConvVAE(config.latent_size).to(device)
    if start is not None:
        vision.load_state_dict(dict(start))
    stream = FrameStream(flushes, config.batch, config.window, seed)

    loss = vision_loss(vision, config, seed, device)
    steps = max(1, round(config.epochs * stream.batches_per_epoch))
    schedule = Schedule(steps, config.lr, final_fraction=0.1)
    fit("vision", vision, stream.batches, loss, schedule, directory, ("reconstruction", "kl"), config.batch)
    return vision, _held_out_loss(vision, stream, config, device)


def vision_loss(
    vision: ConvVAE, config: VisionConfig, seed: int, device: torch.device
) -> Callable[[Tensor, int], Loss]:
    """The loss of a batch of frames (B, 64, 64, 3) uint8 at a step; its noise depends on seed and step alone."""

    def loss(frames: Tensor, step: int) -> Loss:
        images = images_from_frames(frames.to(device), torch.bfloat16)
        eps = noise((len(frames), config.latent_size), seed, 13, step).to(device)
        with precision(device):
            output = vision(images, eps)
        return vae_loss(output.reconstruction, images, output.mu, output.logvar, config.kl_tolerance, config.emphasis)

    return loss


@torch.no_grad()
def _held_out_loss(
    vision: ConvVAE, stream: FrameStream, config: VisionConfig, device: torch.device
) -> dict[str, float]:
    totals = {"reconstruction": 0.0, "kl": 0.0}
    blocks = stream.held_out[:64]
    if not blocks:
        return {}  # too few frames to keep some apart; no loss is better than one of zero
    for block in blocks:
        images = images_from_frames(torch.from_numpy(stream.load([block])).to(device))
        mu, logvar = vision.encode(images)
        _, parts = vae_loss(vision.decode(mu), images, mu, logvar, config.kl_tolerance, config.emphasis)
        for name in totals:
            totals[name] += parts[name].item() / len(blocks)
    return {f"held_out_{name}": value for name, value in totals.items()}
