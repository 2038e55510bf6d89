"""What C's inputs become in a mirror, for worlds in which left and right are alike.

Recorded episodes are seen in a mirror: their frames, as V decodes them, are turned round and encoded again, and M
follows them with the actions of a car that steers to the other side. A linear map from C's inputs to those of the
mirrored episodes then tells what any other inputs would be in the mirror.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.ridge import PENALTIES, LinearMap, ridge
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.evolution.subspace import recorded_inputs
from worldmodels.memory.latents import Latents
from worldmodels.tasks import Task

_EPISODES = 32
"""Most recorded episodes that are seen in the mirror, evenly spaced."""
_HELD_OUT = 4
"""Of these, one in so many does not serve to fit but to choose the penalty and to measure the result."""
_BATCH = 256


def check_symmetry(config: EvolutionConfig, task: Task) -> None:
    """Raise :class:`UserError` for the symmetry of a mirror where there is none, or without components."""
    if config.symmetry == "none":
        return
    if task.mirror is None:
        raise UserError(
            "--evolution.symmetry mirror is for worlds in which left and right are alike, and "
            f"{task.name} is not known to be one; leave it out"
        )
    if config.components == 0:
        raise UserError(
            "--evolution.symmetry mirror chooses among components of C's inputs, and --evolution.components 0 asks for "
            "none; use --evolution.symmetry none, or at least 1 component"
        )


def mirror_map(agent: Agent, latents: Latents) -> LinearMap:
    """The map from C's inputs (n, F) to what they are in a mirror, by ridge regression; says how well it fits."""
    count = len(latents.lengths)
    numbers = np.linspace(0, count - 1, min(_EPISODES, count)).astype(int).tolist()
    held = numbers[1::_HELD_OUT] or numbers
    fit = [number for number in numbers if number not in held] or numbers
    features, targets = _pairs(agent, latents.of(fit))
    known, truth = _pairs(agent, latents.of(held))
    maps = ridge(features, targets, PENALTIES)
    errors = [float((one(known) - truth).square().sum()) for one in maps]
    best = maps[int(np.argmin(errors))]
    varied = float((truth - truth.mean(dim=0)).square().sum())
    if varied > 0:
        say(f"in a mirror, C's inputs follow from C's inputs with R2 {1 - min(errors) / varied:.2f} on held-out steps")
    return best


def _pairs(agent: Agent, latents: Latents) -> tuple[Tensor, Tensor]:
    """The inputs (n, F) float64 of C along episodes, and along the same episodes in a mirror."""
    sample = [recorded_inputs(agent, part) for part in (latents, mirrored_latents(agent, latents))]
    return torch.from_numpy(sample[0]).double(), torch.from_numpy(sample[1]).double()


def mirrored_latents(agent: Agent, latents: Latents) -> Latents:
    """The same episodes in a mirror; logvar stays that of the recorded frames."""
    assert agent.task.mirror is not None
    encoded = []
    for start in range(0, len(latents.mu), _BATCH):
        interrupt.check()
        frames = agent.decode(latents.mu[start : start + _BATCH].float().to(agent.device))
        encoded.append(agent.encode(np.ascontiguousarray(frames[:, :, ::-1]))[0].half().cpu())
    signs = torch.tensor(agent.task.mirror.actions, dtype=latents.actions.dtype)
    return replace(latents, mu=torch.cat(encoded), actions=latents.actions * signs)
