"""An agent as ONNX models, which run without PyTorch, for example in a browser.

Legend: N rows (any number), Z latent, A action, H hidden, K mixtures, F policy inputs, C controls.
"""

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.core.files import new_directory, write_json
from worldmodels.data.exchange import check_empty, needs
from worldmodels.vision.base import Vision

TOLERANCE = 1e-4
"""Largest difference between the outputs of a model and of PyTorch with which it is kept."""
_PURPOSE = "exporting ONNX models"


class _Encoder(nn.Module):
    def __init__(self, vision: Vision) -> None:
        super().__init__()
        self.vision = vision

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        return self.vision.encode(frames.permute(0, 3, 1, 2).float() / 255)


class _Decoder(nn.Module):
    def __init__(self, vision: Vision) -> None:
        super().__init__()
        self.vision = vision

    def forward(self, z: Tensor) -> Tensor:
        return self.vision.decode(z).permute(0, 2, 3, 1)


class _Memory(nn.Module):
    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.memory = copy.deepcopy(agent.memory).cpu()

    def forward(self, z: Tensor, action: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return self._outputs(z, *self.memory.step(z, action, (h, c)))

    def _outputs(self, z: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        prediction = self.memory.heads(h)
        more = [value for value in prediction[1:] if value is not None]
        if self.memory.mask_head is not None:
            more.append(self.memory.mask_logits(z))
        return (h, c, *prediction.mixture, *more)


class _ClockedMemory(_Memory):
    def forward(  # type: ignore[override]
        self, z: Tensor, action: Tensor, h: Tensor, c: Tensor, steps: Tensor
    ) -> tuple[Tensor, ...]:
        return self._outputs(z, *self.memory.step(z, action, (h, c), steps))


class _Controller(nn.Module):
    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(*layer) for layer in agent.layout.layers(agent.controller))

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


class _Layer(nn.Module):
    bias: Tensor
    weights: Tensor

    def __init__(self, bias: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("bias", bias.clone())
        self.register_buffer("weights", weights.clone())

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ self.weights + self.bias)


@dataclass(frozen=True)
class _Model:
    """A module with the names of its inputs and outputs, and for each input the shape of a row."""

    module: nn.Module
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]

    def example(self, rows: int) -> dict[str, Tensor]:
        """Some inputs, the same in every call."""
        random = torch.Generator().manual_seed(rows)
        return {
            name: torch.randint(0, 256, (rows, *shape), generator=random, dtype=torch.uint8)
            if name == "frames"
            else torch.randn(rows, *shape, generator=random)
            for name, shape in self.inputs.items()
        }


def onnx_models(agent: Agent) -> dict[str, _Model]:
    """The parts of an agent by the names of their files, less ".onnx"."""
    vision = copy.deepcopy(agent.vision).cpu().float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    memory, latent, hidden = agent.memory, agent.vision.latent_size, agent.memory.hidden_size
    heads: dict[str, nn.Module | None] = {"reward": memory.reward_head, "end_logit": memory.end_head}
    heads |= {"hit_logit": memory.hit_head, "mask_logits": memory.mask_head}
    mixture = ("next_h", "next_c", "log_weights", "means", "log_scales")
    state: dict[str, tuple[int, ...]] = {"z": (latent,), "action": (agent.task.action_size,)}
    state |= {"h": (hidden,), "c": (hidden,), **({"steps": ()} if memory.clock else {})}
    outputs = (*mixture, *(name for name, head in heads.items() if head is not None))
    models = {
        "encoder": _Model(_Encoder(vision), {"frames": (64, 64, 3)}, ("mu", "logvar")),
        "decoder": _Model(_Decoder(vision), {"z": (latent,)}, ("images",)),
        "memory": _Model(_ClockedMemory(agent) if memory.clock else _Memory(agent), state, outputs),
    }
    if agent.inputs.size:
        models["controller"] = _Model(_Controller(agent), {"inputs": (agent.inputs.size,)}, ("controls",))
    return models


def export_onnx(agent: Agent, directory: Path) -> dict[str, float]:
    """Write an agent as encoder.onnx, decoder.onnx, memory.onnx, controller.onnx and agent.json.

    Every model is run with onnxruntime and compared with PyTorch; nothing is kept if one differs by more than
    :data:`TOLERANCE`. Returns the largest differences by name. Raises :class:`UserError` then, and for a directory that
    is not empty.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needs(package, _PURPOSE)
    check_empty(directory)
    differences: dict[str, float] = {}
    about: dict[str, Any] = {}
    with new_directory(directory) as temporary:
        for name, model in onnx_models(agent).items():
            path = temporary / f"{name}.onnx"
            _write(model, path)
            differences[name] = _difference(model, path)
            if not differences[name] <= TOLERANCE:
                raise UserError(f"the ONNX model of the {name} differs from PyTorch by {differences[name]:g}; not kept")
            inputs = {key: ["N", *shape] for key, shape in model.inputs.items()}
            about[name] = {"inputs": inputs, "outputs": list(model.outputs)}
        write_json(temporary / "agent.json", _about(agent) | {"models": about, "differences": differences})
    return differences


def _about(agent: Agent) -> dict[str, Any]:
    """What a program needs to know to act and dream with the models."""
    memory = agent.memory
    weight = float(memory.end_weight) if memory.end_head is not None else 1.0
    hits = {"hit_weight": float(memory.hit_weight)} if memory.hit_head is not None else {}
    sizes = {"latent_size": memory.latent_size, "hidden_size": memory.hidden_size, "mixtures": memory.mixtures}
    if memory.clock:
        sizes["clock"] = memory.clock
    acting = {"policy_inputs": list(agent.inputs.names), "samples_z": agent.samples_z}
    return {"task": agent.task.name, **sizes, **acting, "end_weight": weight, **hits, "info": agent.info}


@torch.no_grad()
def _write(model: _Model, path: Path) -> None:
    example = model.example(2)
    rows = torch.export.Dim("N", min=1)
    # The exporter reports every one of its steps.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.module.eval(),
            tuple(example.values()),
            path,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            dynamic_shapes=tuple({0: rows} for _ in example),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@torch.no_grad()
def _difference(model: _Model, path: Path) -> float:
    """The largest difference from PyTorch's outputs, for one row and for several."""
    runtime = needs("onnxruntime", _PURPOSE)
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in (1, 3):
        example = model.example(rows)
        mine = model.module(*example.values())
        mine = mine if isinstance(mine, tuple) else (mine,)
        theirs = session.run(list(model.outputs), {name: value.numpy() for name, value in example.items()})
        for one, other in zip(mine, theirs, strict=True):
            if tuple(one.shape) != other.shape:
                return float("inf")
            worst = max(worst, float(np.abs(one.numpy() - other).max(initial=0.0)))
    return worst if np.isfinite(worst) else float("inf")
