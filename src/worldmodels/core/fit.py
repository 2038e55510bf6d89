"""The training loop of V and M. A resumed training is bit-identical, since a step's data depend on its number alone."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.core.metrics import MetricsLog
from worldmodels.core.progress import Progress

Batch = TypeVar("Batch")

Loss = tuple[Tensor, dict[str, Tensor]]
"""The total to minimise, and its parts by name."""

CHECKPOINT = "checkpoint.safetensors"
"""The checkpoint's file name."""

_ADAM = ("step", "exp_avg", "exp_avg_sq")
_LOG_STEPS = 20


@dataclass(frozen=True)
class LearningRate:
    """Adam's learning rate: cosine decay from ``highest`` to ``final_fraction`` of it, with a linear warm-up.

    Over the first ``warmup`` steps, the rate is multiplied by a factor that rises linearly to 1.
    """

    highest: float
    final_fraction: float
    warmup: int = 20

    def at(self, step: int, steps: int) -> float:
        """The learning rate at step ``step``, counted from 0, of ``steps``."""
        warm = min(1.0, (step + 1) / self.warmup)
        low = self.final_fraction
        return self.highest * warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * step / steps)))


@dataclass(frozen=True)
class Schedule:
    """How long to train: the number of steps, and the seconds between two checkpoints."""

    steps: int
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class HeldOut:
    """What is measured on data that are not trained on; the weights with the lowest sum of losses are kept.

    measure(): losses by name, always of the same data; it draws no random numbers. every: steps between two
    measurements; there is also one at the end.
    """

    measure: Callable[[], dict[str, float]]
    parts: tuple[str, ...]
    every: int = 100


@dataclass(frozen=True)
class Objective(Generic[Batch]):
    """A loss and the module that it trains, with its own Adam optimizer. Weights outside the module do not change.

    loss(batch, step): the loss of a batch, whose random numbers must come from a generator seeded by the step. A total
    that requires no gradient leaves the module as it is in this step. parts: names of the loss's parts; clip: elements
    of the gradient are clipped to [-clip, clip] (None: no clipping); betas: those of Adam.
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
    items: str = "frames",
    held_out: HeldOut | None = None,
) -> None:
    """Train the modules of ``objectives`` in place; every step trains them in order, on the same batch.

    batches(step): an iterator that starts with the batch of that step; items_per_step: items per batch, for progress
    and speed; identity: a text that says what is being trained on which data; items: what the items are called;
    held_out: what decides which weights the modules have in the end (None: the last ones). Training continues from the
    checkpoint in ``directory``, if there is one.

    Raises :class:`UserError` for a checkpoint with another identity, for a loss that is not finite (before its module
    is changed), and for weights that are not finite (which are never saved). The metrics are the parts of all losses,
    the sum of the losses, those of the data held out, the learning rate of the first objective, and the speed.
    """
    learners = [_Learner(objective) for objective in objectives]
    checkpoint = directory / CHECKPOINT
    best = _Best(learners)
    start = _restore(checkpoint, learners, best, identity) if checkpoint.exists() else 0
    parts = [part for objective in objectives for part in objective.parts]
    assert len(set(parts)) == len(parts) and len({objective.name for objective in objectives}) == len(objectives)
    measured = [f"held_out_{part}" for part in (*held_out.parts, "loss")] if held_out is not None else []
    log = MetricsLog(directory, (*parts, "loss", *measured, "lr", f"{name}_per_s"), start)
    saved = time.monotonic()
    bar = Progress(schedule.steps * items_per_step, name, items, start * items_per_step)
    with bar, contextlib.closing(log):
        source = batches(start)
        for step in range(start, schedule.steps):
            batch, loss_sum = next(source), 0.0
            loss_parts: dict[str, Tensor] = {}
            for learner in learners:
                total, named_parts = learner.loss(batch, step)
                loss = total.item()
                if not math.isfinite(loss):
                    label = f"{learner.name} loss" if len(learners) > 1 else "loss"
                    raise UserError(f"{name}: the {label} became {loss} at step {step}; {_advice(name, directory)}")
                learner.learn(total, step, schedule.steps)
                loss_sum += loss
                loss_parts |= named_parts
            done = step + 1
            bar.advance(items_per_step, loss=loss_sum)
            numbers: dict[str, float] = {}
            if held_out is not None and (done % held_out.every == 0 or done == schedule.steps):
                numbers = best.measured(held_out.measure(), done)
            if numbers or done % _LOG_STEPS == 0 or done == schedule.steps:
                numbers |= {key: part.item() for key, part in loss_parts.items()}
                lr = learners[0].rate(step, schedule.steps)
                log.log(done, loss=loss_sum, lr=lr, **numbers, **{f"{name}_per_s": bar.rate})
            stopping = interrupt.requested()  # read once: a signal that comes later stops the next step, after saving
            if stopping or done == schedule.steps or time.monotonic() - saved > schedule.checkpoint_seconds:
                if not all(learner.is_finite() for learner in learners):
                    raise UserError(f"{name}: step {step} made weights that are not finite; {_advice(name, directory)}")
                _save(checkpoint, learners, best, identity, done)
                saved = time.monotonic()
            if stopping:
                interrupt.check()
    best.load()


def _advice(name: str, directory: Path) -> str:
    kept = f"the weights before are kept in {directory / CHECKPOINT}: " if (directory / CHECKPOINT).exists() else ""
    return f"{kept}look for broken frames, or start a new run with a lower --{name}.lr"


class _Learner(Generic[Batch]):
    """An objective and its optimizer."""

    def __init__(self, objective: Objective[Batch]) -> None:
        self.name, self.loss, self.rate = objective.name, objective.loss, objective.lr.at
        self._module, self._clip = objective.module, objective.clip
        parameters = objective.module.named_parameters()
        self._parameters = {key: parameter for key, parameter in parameters if parameter.requires_grad}
        self._optimizer = torch.optim.Adam(
            self._parameters.values(), lr=objective.lr.highest, betas=objective.betas, fused=True
        )

    def learn(self, loss: Tensor, step: int, steps: int) -> None:
        """Take one step of Adam on the loss, or none if the loss requires no gradient."""
        if not loss.requires_grad:
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(step, steps)
        self._optimizer.zero_grad(set_to_none=True)
        # Only the module's own weights: the loss may also depend on another objective's module, which must not change.
        loss.backward(inputs=list(self._parameters.values()))  # type: ignore[no-untyped-call]
        if self._clip is not None:
            nn.utils.clip_grad_value_(self._parameters.values(), self._clip)
        self._optimizer.step()

    def is_finite(self) -> bool:
        """Whether every weight is finite."""
        return all(bool(parameter.isfinite().all()) for parameter in self._parameters.values())

    def weights(self) -> dict[str, Tensor]:
        """Weights and buffers, by name."""
        return {f"{self.name}/weights/{key}": value for key, value in self._module.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights and buffers that :meth:`weights` returned."""
        self._module.load_state_dict({key: tensors[f"{self.name}/weights/{key}"] for key in self._module.state_dict()})

    def tensors(self) -> dict[str, Tensor]:
        """Weights, buffers and the state of Adam, by name."""
        tensors = self.weights()
        for key, parameter in self._parameters.items():
            state = self._optimizer.state.get(parameter)  # None for a weight that never had a gradient
            if state is not None:
                tensors |= {f"{self.name}/adam/{part}/{key}": state[part] for part in _ADAM}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what :meth:`tensors` returned; KeyError or RuntimeError for the tensors of another module."""
        self.load(tensors)
        for key, parameter in self._parameters.items():
            names = {part: f"{self.name}/adam/{part}/{key}" for part in _ADAM}
            if any(name in tensors for name in names.values()):
                # The step count moves as well: fused Adam keeps it on the device of the weights.
                state = {part: tensors[name].to(parameter.device) for part, name in names.items()}
                self._optimizer.state[parameter] = state


class _Best(Generic[Batch]):
    """The weights with the lowest loss on the data held out; without any measurement, those that the learners have."""

    def __init__(self, learners: Sequence[_Learner[Batch]]) -> None:
        self._learners = learners
        self._loss, self._step = math.inf, 0
        self._weights: dict[str, Tensor] = {}

    def measured(self, losses: Mapping[str, float], step: int) -> dict[str, float]:
        """Keep the present weights if the sum of their losses is the lowest so far; returns the row's numbers."""
        total = sum(losses.values())
        if total < self._loss:
            self._loss, self._step = total, step
            self._weights = {key: value.clone() for one in self._learners for key, value in one.weights().items()}
        return {f"held_out_{key}": value for key, value in losses.items()} | {"held_out_loss": total}

    def load(self) -> None:
        """Give the learners the kept weights, if there are any."""
        if self._weights:
            for learner in self._learners:
                learner.load(self._weights)

    def tensors(self) -> dict[str, Tensor]:
        """The kept weights by name."""
        return {f"best/{key}": value for key, value in self._weights.items()}

    @property
    def meta(self) -> dict[str, Any]:
        """What the kept weights lost and when, for a checkpoint; empty without any."""
        return {"best": {"loss": self._loss, "step": self._step}} if self._weights else {}

    def restore(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Continue from what :meth:`tensors` and :attr:`meta` returned."""
        if "best" in meta:
            self._loss, self._step = float(meta["best"]["loss"]), int(meta["best"]["step"])
            now = {key: value for learner in self._learners for key, value in learner.weights().items()}
            self._weights = {key: tensors[f"best/{key}"].to(value.device) for key, value in now.items()}


def _save(path: Path, learners: Sequence[_Learner[Batch]], best: _Best[Batch], identity: str, step: int) -> None:
    tensors = {key: value for learner in learners for key, value in learner.tensors().items()}
    save_tensors(path, tensors | best.tensors(), {"step": step, "identity": identity, **best.meta})


def _restore(path: Path, learners: Sequence[_Learner[Batch]], best: _Best[Batch], identity: str) -> int:
    """Restore the learners from a checkpoint and return the number of steps that it has finished."""
    tensors, meta = load_tensors(path)
    try:
        if meta["identity"] != identity:
            raise ValueError
        for learner in learners:
            learner.restore(tensors)
        best.restore(tensors, meta)
        return int(meta["step"])
    except (KeyError, RuntimeError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path} does not belong to this stage; delete it and run the same command again") from None
