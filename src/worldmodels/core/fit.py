"""The one training loop, for V and M: resumable to the bit, because what a step sees depends on its number alone."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.core.metrics import MetricsLog
from worldmodels.core.progress import Progress

Batch = TypeVar("Batch")

Loss = tuple[Tensor, dict[str, Tensor]]
"""A total to minimise, and its parts by name."""

CHECKPOINT = "checkpoint.safetensors"
"""The checkpoint's file name."""

_ADAM = ("step", "exp_avg", "exp_avg_sq")
_LOG_STEPS = 20


@dataclass(frozen=True)
class LearningRate:
    """Adam's learning rate: a cosine from ``highest`` down to ``final_fraction`` of it.

    Over the first ``warmup`` steps it is multiplied by a factor that rises to 1.
    """

    highest: float
    final_fraction: float
    warmup: int = 20

    def at(self, step: int, steps: int) -> float:
        """Learning rate of step ``step`` (from 0) of ``steps``."""
        warm = min(1.0, (step + 1) / self.warmup)
        low = self.final_fraction
        return self.highest * warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * step / steps)))


@dataclass(frozen=True)
class Schedule:
    """How long to train: number of steps, and seconds after which a checkpoint is saved."""

    steps: int
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class Objective(Generic[Batch]):
    """A loss, and the module that it trains with an Adam of its own. No weight outside that module is changed.

    loss(batch, step): what to minimise, drawing any noise from a generator seeded by the step; parts: names of the
    loss's parts; clip: largest absolute value of a gradient's elements (None: no limit); betas: Adam's.
    """

    name: str
    module: nn.Module
    loss: Callable[[Batch, int], Loss]
    parts: tuple[str, ...]
    lr: LearningRate
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)


def fit(
    name: str,
    objectives: Sequence[Objective[Batch]],
    batches: Callable[[int], Iterator[Batch]],
    schedule: Schedule,
    directory: Path,
    items_per_step: int,
    identity: str,
) -> None:
    """Train the modules of ``objectives`` in place: in every step one after the other, on the same batch.

    batches(step): iterator that begins with the batch of that step. A checkpoint in ``directory`` is continued if there
    is one; it must have been saved with the same ``identity``, a text that says what is being trained on what. A loss
    that is not finite stops the training before its module is touched, and weights that are not finite are never saved.
    The metrics are the parts of all losses, the sum of the losses, the first objective's learning rate, and the speed.
    """
    learners = [_Learner(objective) for objective in objectives]
    checkpoint = directory / CHECKPOINT
    start = _restore(checkpoint, learners, identity) if checkpoint.exists() else 0
    parts = [part for objective in objectives for part in objective.parts]
    assert len(set(parts)) == len(parts) and len({one.name for one in objectives}) == len(objectives)
    log = MetricsLog(directory, (*parts, "loss", "lr", f"{name}_per_s"), start)
    saved = time.monotonic()
    bar = Progress(schedule.steps * items_per_step, name, "frames", start * items_per_step)
    with bar, contextlib.closing(log):
        source = batches(start)
        for step in range(start, schedule.steps):
            batch, value = next(source), 0.0
            found: dict[str, Tensor] = {}
            for learner in learners:
                total, its_parts = learner.loss(batch, step)
                one = total.item()
                if not math.isfinite(one):
                    which = f"{learner.name} loss" if len(learners) > 1 else "loss"
                    raise UserError(f"{name}: the {which} became {one} at step {step}; {_advice(name, directory)}")
                learner.learn(total, step, schedule.steps)
                value += one
                found |= its_parts
            done = step + 1
            bar.advance(items_per_step, loss=value)
            if done % _LOG_STEPS == 0 or done == schedule.steps:
                numbers = {key: part.item() for key, part in found.items()}
                lr = learners[0].rate(step, schedule.steps)
                log.log(done, loss=value, lr=lr, **numbers, **{f"{name}_per_s": bar.rate})
            stopping = interrupt.requested()  # asked once: a signal between saving and stopping would cost the work
            if stopping or done == schedule.steps or time.monotonic() - saved > schedule.checkpoint_seconds:
                if not all(learner.is_finite() for learner in learners):
                    raise UserError(f"{name}: step {step} made weights that are not finite; {_advice(name, directory)}")
                _save(checkpoint, learners, identity, done)
                saved = time.monotonic()
            if stopping:
                interrupt.check()


def _advice(name: str, directory: Path) -> str:
    return (
        f"the weights of the last checkpoint are kept in {directory}: look for broken frames, or start a new run "
        f"with a lower --{name}.lr"
    )


class _Learner(Generic[Batch]):
    """One objective and its optimizer."""

    def __init__(self, objective: Objective[Batch]) -> None:
        self.name, self.loss, self.rate = objective.name, objective.loss, objective.lr.at
        self._module, self._clip = objective.module, objective.clip
        self._parameters = {key: one for key, one in objective.module.named_parameters() if one.requires_grad}
        self._optimizer = torch.optim.Adam(
            self._parameters.values(), lr=objective.lr.highest, betas=objective.betas, fused=True
        )

    def learn(self, loss: Tensor, step: int, steps: int) -> None:
        """Change the module by one step of Adam."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(step, steps)
        self._optimizer.zero_grad(set_to_none=True)
        # Only the module's own weights: a loss may lead through another objective's module, which must not be moved.
        loss.backward(inputs=list(self._parameters.values()))  # type: ignore[no-untyped-call]
        if self._clip is not None:
            nn.utils.clip_grad_value_(self._parameters.values(), self._clip)
        self._optimizer.step()

    def is_finite(self) -> bool:
        """Whether every weight is finite."""
        return all(bool(parameter.isfinite().all()) for parameter in self._parameters.values())

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and the state of Adam, by name."""
        tensors = {f"{self.name}/weights/{key}": value for key, value in self._module.state_dict().items()}
        for key, parameter in self._parameters.items():
            state = self._optimizer.state.get(parameter)  # None for a weight that the loss has never led to
            if state is not None:
                tensors |= {f"{self.name}/adam/{part}/{key}": state[part] for part in _ADAM}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` gave; KeyError or RuntimeError for those of something else."""
        weights = {key: tensors[f"{self.name}/weights/{key}"] for key in self._module.state_dict()}
        self._module.load_state_dict(weights)
        for key, parameter in self._parameters.items():
            names = {part: f"{self.name}/adam/{part}/{key}" for part in _ADAM}
            if any(name in tensors for name in names.values()):
                # Also the number of steps: fused Adam keeps it beside the weights.
                state = {part: tensors[name].to(parameter.device) for part, name in names.items()}
                self._optimizer.state[parameter] = state


def _save(path: Path, learners: Sequence[_Learner[Batch]], identity: str, step: int) -> None:
    tensors = {key: value for learner in learners for key, value in learner.tensors().items()}
    save_tensors(path, tensors, {"step": step, "identity": identity})


def _restore(path: Path, learners: Sequence[_Learner[Batch]], identity: str) -> int:
    """Continue from a checkpoint; the number of steps that were done."""
    tensors, meta = load_tensors(path)
    try:
        if meta["identity"] != identity:
            raise ValueError
        for learner in learners:
            learner.restore(tensors)
        return int(meta["step"])
    except (KeyError, RuntimeError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path} does not belong to this stage; delete it and run the same command again") from None
