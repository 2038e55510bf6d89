"""Encoding recorded frames as latents, and the moments of recorded episodes from which dreams start."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.core import interrupt
from worldmodels.core.device import noise
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import Stream
from worldmodels.data.episodes import Shard
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.moments import Moments
from worldmodels.tasks import Task
from worldmodels.vision.base import Vision, encode_frames

_BATCH = 256
_STARTS = 1000
"""How many moments an agent keeps to start dreams from (paper's code)."""
_DROPS = 1000
"""How many of the recorded drops of health an agent keeps at most."""


def encode_shard(vision: Vision, task: Task, shard: Shard, bar: Progress) -> Latents:
    """Encode the frames of a shard, a batch at a time; ``bar`` advances by one per frame."""
    mu, logvar, masks = [], [], []
    for start in range(0, shard.num_frames, _BATCH):
        interrupt.check()
        frames = shard.frames(start, min(start + _BATCH, shard.num_frames))
        encoded, mask = encode_frames(vision, frames), task.action_mask(frames)
        mu.append(encoded[0].half().cpu())
        logvar.append(encoded[1].half().cpu())
        if mask is not None:
            masks.append(torch.from_numpy(mask.astype("uint8")))
        bar.advance(len(mu[-1]))
    names = ("actions", "rewards", "terminated", "lengths")
    small: dict[str, Any] = {name: torch.from_numpy(getattr(shard, name)) for name in names}
    small["health"] = None if shard.health is None else torch.from_numpy(shard.health)
    return Latents(mu=torch.cat(mu), logvar=torch.cat(logvar), action_mask=torch.cat(masks) if masks else None, **small)


def acting_z(latents: Latents, frames: Tensor, samples_z: bool, step: int) -> Tensor:
    """z (n, Z) float32 of recorded frames (n,) as an agent sees it: the mean, or a sample that depends on ``step``."""
    mu = latents.mu[frames].float()
    if not samples_z:
        return mu
    return mu + torch.exp(latents.logvar[frames].float() / 2) * noise(tuple(mu.shape), Stream.ACTING, step)


def set_starts(agent: Agent, latents: Latents, start_steps: Sequence[int]) -> None:
    """Let the dreams of ``agent`` start at the moments of :func:`dream_starts`, as its own M knows them."""
    agent.starts, agent.start_states = dream_starts(agent.memory, latents, start_steps, agent.samples_z)
    episodes = _starting(latents, start_steps)
    steps = torch.tensor([step for step in sorted(episodes) for _ in episodes[step]])
    agent.moments = Moments(steps=steps.int() if agent.memory.clock else None)
    if agent.memory.hit_head is not None and latents.health is not None:
        assert agent.task.full_health is not None
        chosen = torch.cat([episodes[step] for step in sorted(episodes)])
        first_frames = (latents.lengths + 1).cumsum(0) - latents.lengths - 1
        health = latents.health[first_frames[chosen] + steps].nan_to_num(nan=agent.task.full_health)
        drops = recorded_drops(latents, agent.task.full_health)
        agent.moments = agent.moments._replace(health=health, drops=drops if len(drops) else None)


def recorded_drops(latents: Latents, full_health: float) -> Tensor:
    """What hits took of the health, (D,) float32 in ascending order, at most a thousand numbers; none without hits.

    Only hits at full health count, if there are any: at a lower one, death cuts off what a hit would have taken.
    """
    assert latents.health is not None
    steps = torch.arange(len(latents.actions))
    frames = steps + torch.repeat_interleave(torch.arange(len(latents.lengths)), latents.lengths)
    before, after = latents.health[frames], latents.health[frames + 1]
    hit = after < before  # False where the health is not known
    counted = hit & (before >= full_health)
    drops = (before - after)[counted if counted.any() else hit].sort().values
    return drops[torch.linspace(0, len(drops) - 1, min(_DROPS, len(drops))).round().long()]


def _starting(latents: Latents, start_steps: Sequence[int]) -> dict[int, Tensor]:
    """For each step at which dreams start, the episodes (n,) at whose step they do, in order."""
    quota = max(1, _STARTS // len(start_steps))
    # The last episodes that are long enough for each step; in short trial runs there may be none.
    candidates = {step: (latents.lengths > step).nonzero().squeeze(1)[-quota:] for step in start_steps}
    episodes = {step: numbers for step, numbers in candidates.items() if len(numbers)}
    return episodes or {0: torch.arange(len(latents.lengths))[-quota:]}


@torch.inference_mode()
def dream_starts(
    memory: MDNRNN, latents: Latents, start_steps: Sequence[int], samples_z: bool = False
) -> tuple[Tensor, Tensor]:
    """S moments of the last recorded episodes, from which dreams start.

    start_steps: the steps of the episodes at which dreams start; samples_z: whether M follows samples of z, as an agent
    that acts on them, and not means. Returns mu and logvar of the frames at these moments,
    (S, 2, Z) float16, and h and c of M after the steps before them, (S, 2, H) float16, which are zero for step 0.
    """
    device = next(memory.parameters()).device
    episodes = _starting(latents, start_steps)
    chosen = torch.tensor(sorted({number for numbers in episodes.values() for number in numbers.tolist()}))
    lengths = latents.lengths[chosen]
    first_actions = (latents.lengths.cumsum(0) - latents.lengths)[chosen]
    first_frames = first_actions + chosen
    h, c = memory.initial_state(len(chosen))
    codes, states = [], []
    for step in range(max(episodes) + 1):
        if step in episodes:
            starting = torch.isin(chosen, episodes[step])
            frames = first_frames[starting] + step
            codes.append(torch.stack([latents.mu[frames], latents.logvar[frames]], dim=1))
            states.append(torch.stack([h, c], dim=1).cpu()[starting])
        now = (lengths - 1).clamp(max=step)
        z, action = acting_z(latents, first_frames + now, samples_z, step), latents.actions[first_actions + now]
        begun = torch.full((len(chosen),), float(step), device=device)
        h, c = memory.step(z.to(device), action.to(device), (h, c), begun)
    return torch.cat(codes).half(), torch.cat(states).half()
