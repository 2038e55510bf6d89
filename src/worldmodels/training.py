"""The one training loop, for V and M: resumable to the bit, because what a step sees depends on its number alone."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from worldmodels import interrupt
from worldmodels.errors import UserError
from worldmodels.progress import Progress
from worldmodels.storage.atomic import load_tensors, save_tensors
from worldmodels.storage.metrics import MetricsLog

Batch = TypeVar("Batch")

Loss = tuple[Tensor, dict[str, Tensor]]
"""A total to minimise, and its parts by name."""


@dataclass(frozen=True)
class Schedule:
    """How to train: number of steps, Adam's highest and lowest learning rate (cosine), gradient clip (by value)."""

    steps: int
    lr: float
    final_fraction: float
    clip: float | None = None
    warmup: int = 20
    checkpoint_seconds: float = 60.0

    def rate(self, step: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        warm = min(1.0, (step + 1) / self.warmup)
        low = self.final_fraction
        return self.lr * warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * step / self.steps)))


def fit(
    name: str,
    module: nn.Module,
    batches: Callable[[int], Iterator[Batch]],
    loss: Callable[[Batch, int], Loss],
    schedule: Schedule,
    directory: Path,
    columns: tuple[str, ...],
    items_per_step: int,
) -> None:
    """Train ``module`` in place for ``schedule.steps`` steps.

    batches(step): iterator that begins with the batch of that step; loss(batch, step): the loss, drawing any noise from
    a generator seeded by the step. A checkpoint in ``directory`` is continued if there is one. A loss that is not
    finite stops the training before the weights are touched, and weights that are not finite are never saved.
    """
    parameters = {key: value for key, value in module.named_parameters() if value.requires_grad}
    optimizer = torch.optim.Adam(parameters.values(), lr=schedule.lr, fused=True)
    checkpoint = directory / "checkpoint.safetensors"
    start = _restore(checkpoint, module, optimizer, parameters) if checkpoint.exists() else 0
    log = MetricsLog(directory, (*columns, "loss", "lr", f"{name}_per_s"), start)
    saved = time.monotonic()
    bar = Progress(schedule.steps * items_per_step, name, "frames", start * items_per_step)
    with bar, contextlib.closing(log):
        source = batches(start)
        for step in range(start, schedule.steps):
            total, parts = loss(next(source), step)
            value = total.item()
            if not math.isfinite(value):
                raise UserError(f"{name}: the loss became {value} at step {step}; {_advice(name, directory)}")
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            if schedule.clip is not None:
                nn.utils.clip_grad_value_(parameters.values(), schedule.clip)
            optimizer.step()
            done = step + 1
            bar.advance(items_per_step, loss=value)
            if done % 20 == 0 or done == schedule.steps:
                numbers = {key: part.item() for key, part in parts.items()}
                log.log(done, loss=value, lr=schedule.rate(step), **numbers, **{f"{name}_per_s": bar.rate})
            stopping = interrupt.requested()  # asked once: a signal between saving and stopping would cost the work
            if stopping or done == schedule.steps or time.monotonic() - saved > schedule.checkpoint_seconds:
                if not all(parameter.isfinite().all() for parameter in parameters.values()):
                    raise UserError(f"{name}: step {step} made weights that are not finite; {_advice(name, directory)}")
                _save(checkpoint, module, optimizer, parameters, done)
                saved = time.monotonic()
            if stopping:
                interrupt.check()


def _advice(name: str, directory: Path) -> str:
    return (
        f"the weights of the last checkpoint are kept in {directory}: look for broken frames, or start a new run "
        f"with a lower --{name}.lr"
    )


def _save(
    path: Path, module: nn.Module, optimizer: torch.optim.Adam, parameters: dict[str, nn.Parameter], step: int
) -> None:
    tensors = {f"weights/{key}": value for key, value in module.state_dict().items()}
    for key, parameter in parameters.items():
        state = optimizer.state[parameter]
        tensors |= {f"adam/{part}/{key}": state[part] for part in ("step", "exp_avg", "exp_avg_sq")}
    save_tensors(path, tensors, {"step": step})


def _restore(path: Path, module: nn.Module, optimizer: torch.optim.Adam, parameters: dict[str, nn.Parameter]) -> int:
    tensors, meta = load_tensors(path)
    try:
        module.load_state_dict({key: tensors[f"weights/{key}"] for key in module.state_dict()})
        for key, parameter in parameters.items():
            optimizer.state[parameter] = {
                part: tensors[f"adam/{part}/{key}"].to(parameter.device if part != "step" else "cpu")
                for part in ("step", "exp_avg", "exp_avg_sq")
            }
        return int(meta["step"])
    except (KeyError, RuntimeError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path} does not belong to this stage; delete it and run the same command again") from None
