"""The speed of training M: transitions per second, beside the peak of the matrix product and PyTorch's own layers.

M has the sizes of the task's preset ``standard`` and learns from made-up latents, whose episodes have all lengths up to
that in :class:`Sizes`. Where the preset has a burn-in, training is measured with it and without it.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from worldmodels.bench.busy import busy_process
from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import (
    Measure,
    Spread,
    dtype_name,
    dtype_of,
    interleaved,
    peak_gflops,
    seconds_of,
    wait_for,
)
from worldmodels.bench.plain import plain_memory_loss
from worldmodels.bench.table import Save, SpeedTable
from worldmodels.core.device import choose_device
from worldmodels.core.events import listening
from worldmodels.core.fit import Schedule, fit
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.train import MemoryLoss, SequenceSampler
from worldmodels.run.presets import preset
from worldmodels.tasks import Task

_WARMUP = 2
"""Steps before the clock starts."""
PARTS = {
    "batch": "drawing the batch",
    "burn_in": "burn-in",
    "lstm": "LSTM, forward",
    "heads": "heads and loss, forward",
    "backward": "backward",
    "adam": "Adam",
}
"""The parts of a training step, whose shares of its time are measured, and what they are called."""


@dataclass(frozen=True)
class Sizes:
    """The size of one measurement."""

    steps: int = 6
    """Training steps."""
    product: int = 2048
    """Rows and columns of the matrices whose product sets the peak."""
    products: int = 24
    """Matrix products."""
    episodes: int = 64
    """Made-up episodes."""
    longest: int = 1000
    """Transitions of the longest one, at most the task's limit; the shortest has a tenth of them."""


SIZES = Sizes()


def bench(task: Task, repeats: int, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures."""
    device = choose_device("auto")
    about = machine(device, task)
    measured = _Memory(task, device, SIZES)
    spreads = interleaved(measured.measures(), repeats)
    result = figures(spreads, training_flops(measured.memory), measured.burn_in_flops) | {
        "what": "memory",
        "task": task.name,
        "dtype": dtype_name(dtype_of(device)),
        "hidden_size": measured.memory.hidden_size,
        "batch": measured.config.batch,
        "length": measured.length,
        "burn_in": measured.config.burn_in,
        "burnt_in": measured.burnt_in,
        "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
        "machine": about,
        "notes": notes(about),
    }
    if save is not None:
        save(result)
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], flops: float, burn_in_flops: float) -> dict[str, Any]:
    """The main figures, from the medians of the measurements.

    flops: operations per transition in training; burn_in_flops: those of the burn-in, per transition that M learns
    from. Names with "alone" are of training without the burn-in; they are missing where the preset has none.
    """
    median = {name: spread.median for name, spread in spreads.items()}
    train, peak, plain = median["train_transitions_per_s"], median["peak_gflops"], median["plain_transitions_per_s"]
    alone = median.get("alone_transitions_per_s")
    values = {
        "train_transitions_per_s": train,
        "peak_gflops": peak,
        "mflop_per_transition": flops / 1e6,
        "burn_in_mflop_per_transition": burn_in_flops / 1e6,
        "share_of_peak": train * (flops + burn_in_flops) / (peak * 1e9),
        "busy_transitions_per_s": median["busy_transitions_per_s"],
        "busy_share": median["busy_transitions_per_s"] / train,
        "plain_transitions_per_s": plain,
        "speedup": (train if alone is None else alone) / plain,
        "shares": {part: median[f"share {part}"] for part in PARTS if f"share {part}" in median},
    }
    if alone is not None:
        values |= {"alone_transitions_per_s": alone, "alone_share_of_peak": alone * flops / (peak * 1e9)}
    return values


def training_flops(memory: MDNRNN) -> float:
    """Floating-point operations (2 per multiply-add) of the matrix products of one transition in training.

    The gates and the heads: 4H x (I+H) and H x (3ZK + one output for each further head), and those of the mask head.
    Each product of the forward pass has two of the same size in the backward pass, for the gradients of its weights and
    of its input, except that what M gets from outside needs none: the I inputs of the LSTM, and the z of the mask head.
    """
    hidden, latent = memory.hidden_size, memory.latent_size
    recurrent = 4 * hidden * hidden
    heads = sum(head is not None for head in (memory.reward_head, memory.end_head, memory.hit_head))
    outputs = hidden * (3 * latent * memory.mixtures + heads)
    from_outside = 4 * hidden * memory.lstm.input_size
    if memory.mask_head is not None:
        first, _, last = memory.mask_head
        from_outside += first.weight.numel()  # type: ignore[operator]
        outputs += last.weight.numel()  # type: ignore[operator]
    return 2.0 * (3 * (recurrent + outputs) + 2 * from_outside)


def following_flops(memory: MDNRNN) -> float:
    """Operations of one transition of the burn-in: the gates, forward only."""
    return 2.0 * 4 * memory.hidden_size * (memory.hidden_size + memory.lstm.input_size)


class _Memory:
    """The measurements, all on the same made-up latents."""

    def __init__(self, task: Task, device: torch.device, sizes: Sizes) -> None:
        standard = preset("standard", task.name, task.options, task.facts)
        self._task, self._device, self._sizes, self.config = task, device, sizes, standard.memory
        self._latent_size = standard.vision.latent_size
        self._latents = made_up_latents(task, self._latent_size, sizes)
        self.memory = self._new()
        sampler = self._sampler(self.config)
        self.length = sampler.length
        lengths = [0 if before is None else int(before.lengths.sum()) for before in map(sampler.before, self._steps)]
        self.burnt_in = sum(lengths) / (len(lengths) * self.config.batch)
        self.burn_in_flops = following_flops(self.memory) * self.burnt_in / self.length

    @property
    def _steps(self) -> range:
        """The numbers of the training steps that are measured."""
        return range(_WARMUP, _WARMUP + self._sizes.steps)

    def measures(self) -> list[Measure]:
        """All measurements."""
        measures: list[Measure] = [self.peak, self.training, self.busy, self.shares, self.plain]
        return [*measures, self.alone] if self.burn_in_flops else measures

    def peak(self) -> dict[str, float]:
        """The matrix product in the dtype of training."""
        return {"peak_gflops": peak_gflops(self._device, self._sizes.product, self._sizes.products)}

    def training(self) -> dict[str, float]:
        """Training with the loop and the loss of the memory stage."""
        return {"train_transitions_per_s": self._trained(self.config)}

    def busy(self) -> dict[str, float]:
        """The same beside another process that never rests."""
        with busy_process():
            return {"busy_transitions_per_s": self._trained(self.config)}

    def alone(self) -> dict[str, float]:
        """The same without the burn-in."""
        return {"alone_transitions_per_s": self._trained(replace(self.config, burn_in=0))}

    def shares(self) -> dict[str, float]:
        """The parts of a training step, one after the other, as shares of its time."""
        memory, sampler = self._new(), self._sampler(self.config)
        loss, learner = self._loss(memory, sampler, self.config), _optimizer(memory, self.config, fused=True)
        seconds = dict.fromkeys(PARTS, 0.0)
        batches = sampler.batches(0)
        for step in range(self._steps.stop):
            if step == self._steps.start:
                seconds = dict.fromkeys(PARTS, 0.0)
            with self._added(seconds, "batch"):
                batch, steps = next(batches), sampler.steps(step)
            with self._added(seconds, "burn_in"):
                state = loss.burnt_in(batch)
            with self._added(seconds, "lstm"):
                hidden = loss.hidden_states(batch, steps, state)
            with self._added(seconds, "heads"):
                total, _ = loss.scored(batch, hidden)
            with self._added(seconds, "backward"):
                learner.zero_grad()
                total.backward()  # type: ignore[no-untyped-call]
            with self._added(seconds, "adam"):
                nn.utils.clip_grad_value_(memory.parameters(), self.config.clip)
                learner.step()
        if not self.burn_in_flops:
            del seconds["burn_in"]
        return {f"share {part}": value / sum(seconds.values()) for part, value in seconds.items()}

    def plain(self) -> dict[str, float]:
        """Training without the burn-in with PyTorch's own layers, autograd and Adam, in float32."""
        memory, sampler = self._new(), self._sampler(self.config)
        learner, scale = _optimizer(memory, self.config, fused=False), self._task.reward_scale
        batches = (sampler.batch(step) for step in range(self._steps.stop))

        def step() -> None:
            total = plain_memory_loss(memory, *next(batches), self.config, scale, self._device)
            learner.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_value_(memory.parameters(), self.config.clip)
            learner.step()

        seconds = seconds_of(step, self._sizes.steps, _WARMUP, self._device)
        return {"plain_transitions_per_s": self._transitions / seconds}

    @property
    def _transitions(self) -> int:
        """Transitions from which M learns in one measurement."""
        return self._sizes.steps * self.config.batch * self.length

    def _trained(self, config: MemoryConfig) -> float:
        """Transitions per second of training with these settings."""
        memory, sampler, clock = self._new(), self._sampler(config), dict[int, float]()

        def batches(step: int) -> Iterator[Any]:
            for index, batch in enumerate(sampler.batches(step), step):
                # The loop reads the loss of every step, so that a GPU has finished the step before.
                clock[index] = time.perf_counter()
                yield batch

        # One step more than is measured, because a checkpoint is saved after the last one.
        schedule = Schedule(self._steps.stop + 1, checkpoint_seconds=float("inf"))
        # The progress of training is not shown here.
        with tempfile.TemporaryDirectory() as folder, listening(_ignore):
            objective = self._loss(memory, sampler, config).objective()
            fit("memory", [objective], batches, schedule, Path(folder), config.batch * self.length, "", "transitions")
        return self._transitions / (clock[self._steps.stop] - clock[self._steps.start])

    def _loss(self, memory: MDNRNN, sampler: SequenceSampler, config: MemoryConfig) -> MemoryLoss:
        return MemoryLoss(memory, sampler, config, 1, self._device, self._task.reward_scale)

    def _new(self) -> MDNRNN:
        """An untrained M, as the memory stage makes it."""
        config, task = self.config, self._task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            memory = MDNRNN(
                self._latent_size,
                task.action_size,
                config.hidden_size,
                config.mixtures,
                task.predicts_reward,
                task.predicts_end,
                task.control_size if task.masked else 0,
                clock=task.clock_steps if config.clock is None else config.clock,
                hit=config.hit_weight > 0,
            )
        return memory.to(self._device)

    def _sampler(self, config: MemoryConfig) -> SequenceSampler:
        return SequenceSampler(self._latents, config.batch, config.length, 1, config.burn_in, self._task.shows_end)

    @contextlib.contextmanager
    def _added(self, seconds: dict[str, float], part: str) -> Iterator[None]:
        """Add the time of the block to a part's."""
        began = time.perf_counter()
        yield
        wait_for(self._device)
        seconds[part] += time.perf_counter() - began


def made_up_latents(task: Task, latent_size: int, sizes: Sizes) -> Latents:
    """Random latents of episodes of all lengths from a tenth of the longest to the longest."""
    stream = torch.Generator().manual_seed(1)
    longest = min(sizes.longest, task.max_steps)
    lengths = torch.from_numpy(np.linspace(max(1, longest // 10), longest, sizes.episodes).round().astype(np.int64))
    steps = int(lengths.sum())
    frames = steps + sizes.episodes
    return Latents(
        torch.randn(frames, latent_size, generator=stream).half(),
        torch.full((frames, latent_size), -2.0).half(),
        torch.randn(steps, task.action_size, generator=stream),
        torch.randn(steps, generator=stream),
        torch.ones(sizes.episodes, dtype=torch.uint8),
        lengths,
        torch.ones(frames, task.control_size, dtype=torch.uint8) if task.masked else None,
        torch.full((frames,), 100.0),
    )


def _optimizer(memory: MDNRNN, config: MemoryConfig, fused: bool) -> torch.optim.Adam:
    trained = [parameter for parameter in memory.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=config.lr, fused=fused)


def _ignore(event: object) -> None:
    """A listener that ignores every event."""


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    sizes = f"{result['hidden_size']} units, batches of {result['batch']} x {result['length']}"
    table = SpeedTable(f"training M of {result['task']}, {sizes}", spreads)
    table.rate(f"matrix product {SIZES.product} x {SIZES.product} in {result['dtype']}, GFLOP", "peak_gflops")
    burn_in = "alone_transitions_per_s" in spreads
    table.rate(f"training steps in {result['dtype']}, transitions", "train_transitions_per_s")
    table.rate("  beside a busy process", "busy_transitions_per_s")
    table.rate("  without burn-in", "alone_transitions_per_s")
    table.rate(
        f"stock layers in float32{', without burn-in' if burn_in else ''}, transitions", "plain_transitions_per_s"
    )
    table.section()
    for part, share in result["shares"].items():
        table.figure(f"share of the time: {PARTS[part]}", f"{share:.0%}")
    table.section()
    flops = result["mflop_per_transition"]
    total = flops + result["burn_in_mflop_per_transition"]
    table.figure(f"share of the peak, {total:.1f} MFLOP each", f"{result['share_of_peak']:.1%}")
    if burn_in:
        table.figure(f"  without burn-in, {flops:.1f} MFLOP", f"{result['alone_share_of_peak']:.1%}")
    table.figure("beside a busy process, of a quiet machine", f"{result['busy_share']:.0%}")
    table.figure("times the stock layers", f"{result['speedup']:.1f}")
    more = (
        [f"burn-in: {result['burnt_in']:.0f} transitions before each sequence of {result['length']}"] if burn_in else []
    )
    table.print(result, *more)
