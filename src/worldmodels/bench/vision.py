"""The speed of training V: frames per second, beside the peak of the matrix product and PyTorch's own layers."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import (
    Spread,
    agent_for,
    dtype_name,
    dtype_of,
    interleaved,
    peak_gflops,
    seconds_of,
)
from worldmodels.bench.plain import PlainVAE, plain_images
from worldmodels.bench.table import Save, SpeedTable
from worldmodels.core.errors import UserError
from worldmodels.core.events import listening
from worldmodels.core.fit import Schedule, fit
from worldmodels.core.metrics import MetricsLog
from worldmodels.tasks import Task
from worldmodels.vision.base import rounded_images
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.conv_vae import ConvVAE, vae_loss

_WARMUP = 3
"""Steps and batches before the clock starts."""


@dataclass(frozen=True)
class Sizes:
    """The size of one measurement."""

    batch: int = VisionConfig().batch
    """Frames per training step."""
    steps: int = 16
    """Training steps."""
    plain_steps: int = 8
    """Training steps of PyTorch's own layers."""
    product: int = 2048
    """Rows and columns of the matrices whose product sets the peak."""
    products: int = 24
    """Matrix products."""
    encode_batches: tuple[int, ...] = (1, 32, 128)
    """Batches at which encoding is measured."""
    encode_frames: int = 4096
    """Frames encoded in the largest batches; fewer in smaller batches, so that they take no longer."""


SIZES = Sizes()


def bench(task: Task, repeats: int, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures."""
    agent = agent_for(task)
    if not isinstance(agent.vision, ConvVAE):
        raise UserError(f"this benchmark needs a V of the kind conv-vae; that of {task.name} is {agent.vision.name}")
    about = machine(agent.device, task)
    measured = _Vision(agent.vision.latent_size, agent.device, SIZES)

    def encoding() -> dict[str, float]:
        return {f"encode_{batch}": measured.encoding(agent.encode, batch) for batch in SIZES.encode_batches}

    measures = [measured.peak, measured.training, measured.plain, encoding]
    spreads = interleaved(measures, repeats)
    flops = training_flops(agent.vision.latent_size)
    result = figures(spreads, flops) | {
        "what": "vision",
        "task": task.name,
        "dtype": dtype_name(dtype_of(agent.device)),
        "batch": SIZES.batch,
        "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
        "machine": about,
        "notes": notes(about),
    }
    if save is not None:
        save(result)
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], flops: float) -> dict[str, Any]:
    """The main figures, from the medians of the measurements; flops: operations per frame in training."""
    median = {name: spread.median for name, spread in spreads.items()}
    train, peak, plain = median["train_frames_per_s"], median["peak_gflops"], median["plain_frames_per_s"]
    return {
        "train_frames_per_s": train,
        "peak_gflops": peak,
        "mflop_per_frame": flops / 1e6,
        "share_of_peak": train * flops / (peak * 1e9),
        "plain_frames_per_s": plain,
        "speedup": train / plain,
        "encode_frames_per_s": {
            name.removeprefix("encode_"): value for name, value in median.items() if name.startswith("encode_")
        },
    }


def forward_flops(latent_size: int) -> tuple[float, float]:
    """Floating-point operations (2 per multiply-add) of one frame in the encoder and in the decoder."""
    # (rows and columns at which the kernel is applied, channels in, channels out, kernel)
    encoder = [(31, 3, 32, 4), (14, 32, 64, 4), (6, 64, 128, 4), (2, 128, 256, 4)]
    decoder = [(1, 1024, 128, 5), (5, 128, 64, 5), (13, 64, 32, 6), (30, 32, 3, 6)]
    flops = [sum(2 * n * n * a * b * k * k for n, a, b, k in layers) for layers in (encoder, decoder)]
    return flops[0] + 2 * 2 * 1024 * latent_size, flops[1] + 2 * 1024 * latent_size


def training_flops(latent_size: int) -> float:
    """Operations of one frame in training; the backward pass has two products for each product of the forward pass."""
    return 3.0 * sum(forward_flops(latent_size))


class _Vision:
    """The measurements, all on the same random frames."""

    def __init__(self, latent_size: int, device: torch.device, sizes: Sizes) -> None:
        self._latent_size, self._device, self._sizes = latent_size, device, sizes
        self._config = replace(VisionConfig(), latent_size=latent_size)
        stream = np.random.default_rng(1)
        count = max(8 * sizes.batch, *sizes.encode_batches)
        self._frames = stream.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        # Makes the imports that metrics need, so that they are not part of the first measurement.
        with tempfile.TemporaryDirectory() as folder, listening(_ignore):
            log = MetricsLog(Path(folder), ("loss",))
            log.log(1, loss=0.0)
            log.close()

    def peak(self) -> dict[str, float]:
        """The matrix product in V's dtype."""
        return {"peak_gflops": peak_gflops(self._device, self._sizes.product, self._sizes.products)}

    def training(self) -> dict[str, float]:
        """Training with the loop and the loss of the vision stage, on frames in memory."""
        torch.manual_seed(1)
        vision = ConvVAE(self._latent_size).to(self._device)
        clock: dict[int, float] = {}

        def batches(step: int) -> Iterator[Tensor]:
            for index, frames in enumerate(self._batches(step), step):
                clock[index] = time.perf_counter()
                yield rounded_images(frames.to(self._device)).float()

        steps = self._sizes.steps
        # One step more than is measured, because a checkpoint is saved after the last one.
        schedule = Schedule(_WARMUP + steps + 1, checkpoint_seconds=float("inf"))
        # The progress of training is not shown here.
        with tempfile.TemporaryDirectory() as folder, listening(_ignore):
            objectives = vision.objectives(self._config, 1)
            fit("vision", objectives, batches, schedule, Path(folder), self._sizes.batch, "")
        return {"train_frames_per_s": steps * self._sizes.batch / (clock[_WARMUP + steps] - clock[_WARMUP])}

    def plain(self) -> dict[str, float]:
        """Training with PyTorch's own layers in float32 and its default memory layout, on all cores."""
        torch.manual_seed(1)
        vision = PlainVAE(self._latent_size).to(self._device)
        optimizer = torch.optim.Adam(vision.parameters(), lr=self._config.lr)
        batches = self._batches(0)

        def step() -> None:
            images = plain_images(next(batches).to(self._device))
            output = vision(images, torch.randn(len(images), self._latent_size, device=self._device))
            total, _ = vae_loss(output.reconstruction, images, output.mu, output.logvar, self._config.kl_tolerance)
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        steps = self._sizes.plain_steps
        seconds = seconds_of(step, steps, _WARMUP, self._device)
        return {"plain_frames_per_s": steps * self._sizes.batch / seconds}

    def encoding(self, encode: Callable[[np.ndarray], Any], batch: int) -> float:
        """Frames per second when encoding batches of ``batch`` frames."""
        # Every batch has a fixed cost, so that fewer frames are encoded in small batches.
        frames = self._sizes.encode_frames * (batch + 8) // (max(self._sizes.encode_batches) + 8)
        times = max(1, frames // batch)
        inputs = np.ascontiguousarray(self._frames[:batch])
        return times * batch / seconds_of(lambda: encode(inputs), times, _WARMUP, self._device)

    def _batches(self, step: int) -> Iterator[Tensor]:
        size = self._sizes.batch
        for index in itertools.count(step):
            start = index * size % (len(self._frames) - size + 1)
            # Copied, as the shuffled batches of training are.
            yield torch.from_numpy(self._frames[start : start + size].copy())


def _ignore(event: object) -> None:
    """A listener that ignores every event."""


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    table = SpeedTable(f"training V, batches of {result['batch']}", spreads)
    table.rate(f"matrix product {SIZES.product} x {SIZES.product} in {result['dtype']}, GFLOP", "peak_gflops")
    table.rate(f"training steps in {result['dtype']}, frames", "train_frames_per_s")
    table.rate("stock layers in float32, frames", "plain_frames_per_s")
    for batch in SIZES.encode_batches:
        table.rate(f"encoding in batches of {batch}, frames", f"encode_{batch}")
    table.section()
    share = f"share of the peak, at {result['mflop_per_frame']:.0f} MFLOP a frame"
    table.figure(share, f"{result['share_of_peak']:.1%}")
    table.figure("times the stock layers", f"{result['speedup']:.1f}")
    table.print(result)
