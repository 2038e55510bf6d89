"""Training V: frames per second against the peak of the matrix product and against stock layers in float32."""

import contextlib
import dataclasses
import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.bench.measure import (
    Spread,
    agent_for,
    busy_note,
    dtype_name,
    dtype_of,
    interleaved,
    machine,
    peak_gflops,
    seconds_of,
)
from worldmodels.bench.plain import PlainVAE, plain_images
from worldmodels.core.fit import Loss, Schedule, fit
from worldmodels.run.presets import preset
from worldmodels.tasks import Task
from worldmodels.vision.conv_vae import ConvVAE, vae_loss
from worldmodels.vision.train import vision_loss

_WARMUP = 3
"""Steps and batches before the clock starts."""


@dataclass(frozen=True)
class Sizes:
    """How much one measurement does."""

    batch: int = preset("standard").vision.batch
    """Frames per training step."""
    steps: int = 16
    """Training steps."""
    plain_steps: int = 8
    """Training steps of the stock layers."""
    product: int = 2048
    """Rows and columns of the matrices whose product sets the peak."""
    products: int = 24
    """Products."""
    encode_batches: tuple[int, ...] = (1, 32, 128)
    """Batches at which encoding is measured."""
    encode_frames: int = 4096
    """Frames encoded at the largest batch; at smaller ones fewer, so that it takes no longer."""


SIZES = Sizes()


def bench(task: Task, repeats: int) -> dict[str, Any]:
    """Measure, print a table and return the figures."""
    agent = agent_for(task)
    about = machine(agent.device)
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
        "notes": busy_note(about["load"], about["cores"]),
    }
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], flops: float) -> dict[str, Any]:
    """The figures that count, from the medians of what was measured; ``flops`` per trained frame."""
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
    """Floating point operations of one frame in the encoder and in the decoder, two for a multiply-add."""
    # (rows and columns at which the kernel is applied, channels in, channels out, kernel)
    encoder = [(31, 3, 32, 4), (14, 32, 64, 4), (6, 64, 128, 4), (2, 128, 256, 4)]
    decoder = [(1, 1024, 128, 5), (5, 128, 64, 5), (13, 64, 32, 6), (30, 32, 3, 6)]
    layers = [sum(2 * n * n * a * b * k * k for n, a, b, k in some) for some in (encoder, decoder)]
    return layers[0] + 2 * 2 * 1024 * latent_size, layers[1] + 2 * 1024 * latent_size


def training_flops(latent_size: int) -> float:
    """Operations of one frame in training: the backward pass is two products for each one of the forward pass."""
    return 3.0 * sum(forward_flops(latent_size))


class _Vision:
    """The measurements, all on the same random frames."""

    def __init__(self, latent_size: int, device: torch.device, sizes: Sizes) -> None:
        self._latent_size, self._device, self._sizes = latent_size, device, sizes
        stream = np.random.default_rng(1)
        count = max(8 * sizes.batch, *sizes.encode_batches)
        self._frames = stream.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        # Otherwise its import falls into the first measurement.
        import torch.utils.tensorboard.writer  # noqa: F401

    def peak(self) -> dict[str, float]:
        """The matrix product in V's dtype."""
        return {"peak_gflops": peak_gflops(self._device, self._sizes.product, self._sizes.products)}

    def training(self) -> dict[str, float]:
        """The loop and the loss of the vision stage, on frames that lie in memory."""
        torch.manual_seed(1)
        config = dataclasses.replace(preset("standard").vision, latent_size=self._latent_size)
        vision = ConvVAE(self._latent_size).to(self._device)
        clock: list[float] = []

        trained = vision_loss(vision, config, 1, self._device)

        def loss(frames: Tensor, step: int) -> Loss:
            if step == _WARMUP:
                clock.append(time.perf_counter())
            return trained(frames, step)

        steps = self._sizes.steps
        schedule = Schedule(_WARMUP + steps, config.lr, final_fraction=0.1, checkpoint_seconds=float("inf"))
        columns = ("reconstruction", "kl")
        # The progress and the curves belong to training, but not on this screen and not into any run.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            fit("vision", vision, self._batches, loss, schedule, Path(folder), columns, self._sizes.batch)
            seconds = time.perf_counter() - clock[0]
        return {"train_frames_per_s": steps * self._sizes.batch / seconds}

    def plain(self) -> dict[str, float]:
        """Stock convolutions in float32 with PyTorch's default memory layout and Adam, on all cores."""
        torch.manual_seed(1)
        config = preset("standard").vision
        vision = PlainVAE(self._latent_size).to(self._device)
        optimizer = torch.optim.Adam(vision.parameters(), lr=config.lr)
        batches = self._batches(0)

        def step() -> None:
            images = plain_images(next(batches).to(self._device))
            output = vision(images, torch.randn(len(images), self._latent_size, device=self._device))
            total, _ = vae_loss(output.reconstruction, images, output.mu, output.logvar, config.kl_tolerance)
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        steps = self._sizes.plain_steps
        seconds = seconds_of(step, steps, _WARMUP, self._device)
        return {"plain_frames_per_s": steps * self._sizes.batch / seconds}

    def encoding(self, encode: Callable[[np.ndarray], Any], batch: int) -> float:
        """Frames per second that are encoded in batches of ``batch``."""
        # A batch costs something of its own, so that small ones get a share of the frames only.
        frames = self._sizes.encode_frames * (batch + 8) // (max(self._sizes.encode_batches) + 8)
        times = max(1, frames // batch)
        some = np.ascontiguousarray(self._frames[:batch])
        return times * batch / seconds_of(lambda: encode(some), times, _WARMUP, self._device)

    def _batches(self, step: int) -> Iterator[Tensor]:
        size = self._sizes.batch
        for index in itertools.count(step):
            start = index * size % (len(self._frames) - size + 1)
            # A copy, as the shuffled batches of training are.
            yield torch.from_numpy(self._frames[start : start + size].copy())


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    from rich.console import Console
    from rich.table import Table

    about = result["machine"]
    table = Table(title=f"training V, batches of {result['batch']}", title_justify="left")
    table.add_column("measured")
    for column in ("per second", "lowest", "highest"):
        table.add_column(column, justify="right")

    def row(name: str, key: str) -> None:
        spread = spreads[key]
        table.add_row(name, *(f"{one:,.0f}" for one in (spread.median, min(spread.values), max(spread.values))))

    row(f"matrix product {SIZES.product} x {SIZES.product} in {result['dtype']}, GFLOP", "peak_gflops")
    row(f"training steps in {result['dtype']}, frames", "train_frames_per_s")
    row("stock layers in float32, frames", "plain_frames_per_s")
    for batch in SIZES.encode_batches:
        row(f"encoding in batches of {batch}, frames", f"encode_{batch}")
    table.add_section()
    share = f"share of the peak, at {result['mflop_per_frame']:.0f} MFLOP a frame"
    table.add_row(share, f"{result['share_of_peak']:.1%}", "", "")
    table.add_row("times the stock layers", f"{result['speedup']:.1f}", "", "")
    lines = [f"{about['cpu']}, {about['cores']} cores, {about['gpu'] or 'no GPU'}"]
    table.caption = "\n".join(lines + result["notes"])
    Console().print(table)
