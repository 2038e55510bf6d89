"""Carrying the C of a round over to the V and M of the next one, by ridge regression.

V and M go on training in the next round, and then encode the same frames as another z, h and c than those for which the
weights of C were evolved. The layer of C that sees them is fitted again: on recorded episodes of the new round, its
sums before tanh shall be those of the old C with the old V and M. The penalty is on the change of the weights, so that
without any evidence they stay as they are. A hidden layer's outputs are used by C as before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.controller.layout import Layout
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import array, load_tensors, save_tensors
from worldmodels.core.ridge import PENALTIES, r_squared, ridge
from worldmodels.data.episodes import Shard
from worldmodels.evolution.subspace import recorded_inputs
from worldmodels.memory.latents import Latents, places

CARRIED_FILE = "carried.safetensors"
_KEPT = ("controller", "r_squared", "unchanged")
"""The tensors in that file, in the order of the fields of :class:`Carried`."""
_EPISODES = 80
"""Most episodes of the new round that are used, evenly spaced."""
_HELD_OUT = 5
"""Of these, one in so many does not serve to fit but to choose the penalty and to measure the result."""
_CONSTANT = 1e-3
"""A control with a smaller standard deviation counts as constant: there is nothing to explain."""
_BATCH = 256


class Carried(NamedTuple):
    """A C for the new V and M, and how well its controls match those of the old agent on held-out episodes.

    controller: (P,) float32; r_squared: (C,) float64, R2 of each control, NaN for one that is constant; unchanged: the
    same for C with the weights that it had.
    """

    controller: Tensor
    r_squared: np.ndarray
    unchanged: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """The lowest R2 of all controls; empty if they are constant."""
        known = self.r_squared[np.isfinite(self.r_squared)]
        return {"carried_r2": float(known.min())} if len(known) else {}


def carried_controller(
    before: Agent, agent: Agent, shards: Sequence[Shard], latents: Latents, directory: Path, identity: str = ""
) -> Carried:
    """The C of ``before`` for the V and M of ``agent``, which has the same inputs of C; says how well it fits.

    shards: the episodes of the new round; latents: those of all rounds as the V of ``agent`` encodes them, the new ones
    last. The result is kept in ``directory``, so that a killed process goes on with the same C; what was kept for
    another identity is not used. Raises :class:`UserError` for fewer than two episodes.
    """
    path = directory / CARRIED_FILE
    if path.exists():
        tensors, meta = load_tensors(path)
        if meta.get("identity") == identity and set(tensors) == set(_KEPT):
            return Carried(tensors["controller"], array(tensors["r_squared"]), array(tensors["unchanged"]))
    carried, samples = _fitted(before, agent, shards, latents)
    save_tensors(path, dict(zip(_KEPT, map(torch.as_tensor, carried), strict=True)), {"identity": identity})
    if samples:
        now, was = _text(carried.r_squared), _text(carried.unchanged)
        say(
            f"C is carried over by ridge regression: R2 of its controls is {now} on {samples:,} held-out steps, with "
            f"unchanged weights {was}"
        )
    return carried


def _text(values: np.ndarray) -> str:
    return ", ".join("unknown (constant)" if np.isnan(value) else f"{value:.2f}" for value in values.tolist())


def _fitted(before: Agent, agent: Agent, shards: Sequence[Shard], latents: Latents) -> tuple[Carried, int]:
    """The carried C, and the number of held-out steps: 0 if there was nothing to fit."""
    layout, own = agent.layout, before.controller.double()
    assert before.layout == layout
    unknown = np.full(layout.controls, np.nan)
    if not layout.inputs or not layout.acts(own):
        return Carried(before.controller, unknown, unknown), 0
    fit, held = _split(shards)
    old, new = _inputs(before, shards, latents, fit, True), _inputs(agent, shards, latents, fit, False)
    candidates = [own, *_refitted(agent, own, old, new)]
    old, new = _inputs(before, shards, latents, held, True), _inputs(agent, shards, latents, held, False)
    # Rounded as they will be used, and compared as the world meets them: after tanh.
    truth = _controls(layout, own, old)
    found = [_controls(layout, one.float().double(), new) for one in candidates]
    best = int(np.argmin([float((controls - truth).square().sum()) for controls in found]))
    varied = array(truth).std(axis=0) > _CONSTANT
    fits = (np.where(varied, r_squared(array(found[index]), array(truth)), np.nan) for index in (best, 0))
    return Carried(candidates[best].float(), *fits), len(truth)


def _refitted(agent: Agent, own: Tensor, old: Tensor, new: Tensor) -> list[Tensor]:
    """For each penalty, the parameters (P,) of C with its first layer fitted: old and new are its inputs (n, F)."""
    layout = agent.layout
    bias, weights = layout.layers(own)[0]
    missing = (old - new) @ weights
    scales = torch.ones(layout.inputs, dtype=torch.float64)
    for part in map(agent.inputs.part, agent.inputs.names):
        # The parts count equally, because c is unbounded and would dominate z and h.
        spread = float(new[:, part].var(dim=0, unbiased=False).mean().sqrt())
        scales[part] = 1 / spread if spread > 0 else 1.0
    found = []
    for change in ridge(new * scales, missing, PENALTIES):
        moved = bias + change.level - change.centre @ change.weights
        found.append(torch.cat([moved, (weights + scales[:, None] * change.weights).flatten(), own[layout.first :]]))
    return found


def _controls(layout: Layout, parameters: Tensor, inputs: Tensor) -> Tensor:
    """The controls (n, C) float64 of one C for inputs (n, F)."""
    for bias, weights in layout.layers(parameters):
        inputs = torch.tanh(inputs @ weights + bias)
    return inputs


def _split(shards: Sequence[Shard]) -> tuple[list[int], list[int]]:
    """The numbers of the episodes to fit and of those to hold out, counted over all shards."""
    count = sum(len(shard.lengths) for shard in shards)
    if count < 2:
        raise UserError(
            f"C cannot be carried over by ridge regression with {count} episode of the new round, expected at least 2: "
            "collect more, or use --evolution.carry weights"
        )
    chosen = np.linspace(0, count - 1, min(_EPISODES, count)).astype(int).tolist()
    held = chosen[1::_HELD_OUT]
    return [number for number in chosen if number not in held], held


def _inputs(agent: Agent, shards: Sequence[Shard], latents: Latents, numbers: Sequence[int], encode: bool) -> Tensor:
    """The inputs (n, F) float64 of the agent's C along episodes of the shards; the steps are the same for every agent.

    encode: whether the frames are encoded by the agent's own V, because the latents are of another one.
    """
    earlier = len(latents.lengths) - sum(len(shard.lengths) for shard in shards)
    part = latents.of([earlier + number for number in numbers])
    if encode:
        part = latents.of([earlier + number for number in numbers], _encoded(agent, shards, numbers))
    return torch.from_numpy(recorded_inputs(agent, part)).double()


def _encoded(agent: Agent, shards: Sequence[Shard], numbers: Sequence[int]) -> Tensor:
    """mu (frames, Z) float16 of all frames of some episodes by the agent's V, as latents hold it."""
    episodes = [
        (shard, start, end)
        for shard in shards
        for start, end in places(torch.from_numpy(shard.lengths) + 1, torch.arange(len(shard.lengths)))
    ]
    encoded = []
    for shard, start, end in (episodes[number] for number in numbers):
        for first in range(start, end, _BATCH):
            interrupt.check()
            encoded.append(agent.encode(shard.frames(first, min(first + _BATCH, end)))[0].half().cpu())
    return torch.cat(encoded)
