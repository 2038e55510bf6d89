"""The speed of dreaming: steps per second of one to thousands of dreams, beside matrix product and plain loop."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent import Agent
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
from worldmodels.bench.table import Save, SpeedTable
from worldmodels.core.device import torch_threads
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.execution.executor import Executor, make_executor
from worldmodels.memory.mixture import Mixture
from worldmodels.tasks import Task

_WARMUP = 1


@dataclass(frozen=True)
class Sizes:
    """The size of one measurement."""

    dreams: tuple[int, ...] = (1, 64, 1024, 4096)
    """Numbers of dreams at once; from 64 on, they are those of candidates with 16 dreams each."""
    steps: int = 200_000
    """Dream steps of one measurement, at most."""
    plain_steps: int = 600
    """Steps of the plain loop."""
    longest: int = 400
    """Steps of one dream, at most."""
    product: int = 2048
    """Rows and columns of the matrices whose product sets the peak."""


SIZES = Sizes()
GPU_SIZES = Sizes((1, 64, 1024, 4096, 65_536, 262_144), steps=1 << 27, longest=1024, product=8192)
"""A GPU needs far more dreams than a CPU to be busy."""


def bench(task: Task, repeats: int, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures."""
    agent = _endless(agent_for(task))
    about = machine(agent.device, task)
    sizes = SIZES if agent.device.type == "cpu" else GPU_SIZES
    with contextlib.closing(make_executor()) as executor:
        measured = _Dreaming(agent, sizes, executor)
        spreads = interleaved([measured.peak, measured.dreaming, measured.plain], repeats)
    result = figures(spreads, flops_per_step(agent)) | {
        "what": "dream",
        "task": task.name,
        "dtype": dtype_name(dtype_of(agent.device)),
        "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
        "machine": about,
        "notes": notes(about),
    }
    if save is not None:
        save(result)
    _print(result, spreads, sizes.product)
    return result


def figures(spreads: Mapping[str, Spread], flops: float) -> dict[str, Any]:
    """The main figures, from the medians of the measurements; flops: operations of one dream step."""
    median = {name: spread.median for name, spread in spreads.items()}
    rates = {name.removeprefix("dreams_"): value for name, value in median.items() if name.startswith("dreams_")}
    peak, plain = median["peak_gflops"], median["plain_steps_per_s"]
    return {
        "dream_steps_per_s": rates,
        "peak_gflops": peak,
        "mflop_per_step": flops / 1e6,
        "share_of_peak": {name: rate * flops / (peak * 1e9) for name, rate in rates.items()},
        "plain_steps_per_s": plain,
        "speedup": {name: rate / plain for name, rate in rates.items()},
    }


def flops_per_step(agent: Agent) -> float:
    """Floating-point operations of one dream step (2 per multiply-add): gates, heads and controller."""
    memory = agent.memory
    inputs = memory.lstm.input_size + memory.hidden_size
    outputs = 3 * memory.latent_size * memory.mixtures
    outputs += (memory.reward_head is not None) + (memory.end_head is not None)
    mask = 0 if memory.mask_head is None else sum(weights.numel() for weights in memory.mask_head.parameters())
    return 2.0 * (inputs * 4 * memory.hidden_size + memory.hidden_size * outputs + mask + len(agent.controller))


def _endless(agent: Agent) -> Agent:
    """The agent, changed so that its dreams never end by themselves and every measurement has the same steps."""
    if agent.memory.end_head is not None:
        torch.nn.init.zeros_(agent.memory.end_head.weight)
        torch.nn.init.constant_(agent.memory.end_head.bias, -100.0)
    if agent.starts is None:
        agent.starts = torch.zeros(1, 2, agent.memory.latent_size)
    return agent


class _Dreaming:
    """The measurements."""

    def __init__(self, agent: Agent, sizes: Sizes, executor: Executor) -> None:
        self._agent, self._sizes = agent, sizes
        self._fitness = DreamFitness(executor, agent, 1.0, "sample")

    def peak(self) -> dict[str, float]:
        """The matrix product in the dtype of dreams."""
        return {"peak_gflops": peak_gflops(self._agent.device, self._sizes.product)}

    def dreaming(self) -> dict[str, float]:
        """The fitness of controllers, computed as in evolution, for every number of dreams."""
        rates = {}
        for count in self._sizes.dreams:
            episodes = min(16, count)
            controllers = np.repeat(self._agent.controller.numpy()[None], count // episodes, axis=0)
            steps = max(10, min(self._sizes.longest, self._sizes.steps // count))
            work = partial(self._fitness, controllers, list(range(episodes)), steps)
            rates[f"dreams_{count}"] = count * steps / seconds_of(work, 1, _WARMUP, self._agent.device)
        return rates

    def plain(self) -> dict[str, float]:
        """One dream at a time through the same networks, written straightforwardly, in float32."""
        agent, count = self._agent, self._sizes.plain_steps
        memory, controller = agent.memory, agent.controllers(agent.controller[None])

        @torch.inference_mode()
        def dream() -> None:
            assert agent.starts is not None
            z = agent.starts[:1, 0].float().to(agent.device)
            h, c = memory.initial_state(1)
            total = 0.0
            for step in range(count):
                control = controller(agent.inputs(z, h, c))
                if memory.mask_head is not None:
                    control = control.masked_fill(memory.mask_logits(z) <= 0, -torch.inf)
                steps = torch.full((1,), float(step), device=agent.device)
                h, c = memory.step(z, agent.task.dream_action(control), (h, c), steps)
                prediction = memory.heads(h)
                z = sample(prediction.mixture)
                if prediction.reward is not None:
                    total += prediction.reward.item()
                if prediction.end_logit is not None:
                    chance = torch.sigmoid(memory.unweighted_end_logit(prediction.end_logit)).item()
                    if torch.rand(()).item() < chance:
                        break

        with torch_threads(1):
            return {"plain_steps_per_s": count / seconds_of(dream, 1, _WARMUP, agent.device)}


def sample(mixture: Mixture, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """Sample z (..., Z): a component by softmax(log_weights / temperature), then noise scaled by sqrt(temperature)."""
    uniform = torch.rand(mixture.means.shape, generator=generator, device=mixture.means.device)
    # The Gumbel-max trick draws the components of all dimensions at once.
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    choice = (mixture.log_weights / temperature + gumbel).argmax(dim=-1, keepdim=True)
    mean = mixture.means.gather(-1, choice).squeeze(-1)
    scale = mixture.log_scales.gather(-1, choice).squeeze(-1).exp()
    noise = torch.randn(mean.shape, generator=generator, device=mean.device)
    return mean + math.sqrt(temperature) * scale * noise


def _print(result: dict[str, Any], spreads: Mapping[str, Spread], product: int) -> None:
    table = SpeedTable(f"dreaming {result['task']}, in {result['dtype']}", spreads, ("of the peak", "x plain"))
    table.rate(f"matrix product {product} x {product}, GFLOP", "peak_gflops")
    table.rate("the plain loop, steps", "plain_steps_per_s")
    for count in result["dream_steps_per_s"]:
        share, speedup = result["share_of_peak"][count], result["speedup"][count]
        table.rate(f"{int(count):,} dreams, steps", f"dreams_{count}", f"{share:.1%}", f"{speedup:,.1f}")
    table.print(result, f"{result['mflop_per_step']:.2f} MFLOP a step")
