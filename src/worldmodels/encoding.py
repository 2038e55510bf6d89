"""Turning recorded frames into latents, and what dreams begin with."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels import interrupt
from worldmodels.agent import Agent
from worldmodels.progress import Progress
from worldmodels.storage.episodes import Flush
from worldmodels.storage.latents import Latents

_BATCH = 256
_STARTS = 1000
"""Moments that an agent keeps to begin dreams with (paper's code)."""


def encoded(agent: Agent, flush: Flush, bar: Progress) -> Latents:
    """The latents of a flush, a batch of frames at a time."""
    mu, logvar, allowed = [], [], []
    for start in range(0, flush.num_frames, _BATCH):
        interrupt.check()
        frames = flush.frames(start, min(start + _BATCH, flush.num_frames))
        coded, mask = agent.encode(frames), agent.task.allowed(frames)
        mu.append(coded[0].half().cpu())
        logvar.append(coded[1].half().cpu())
        if mask is not None:
            allowed.append(torch.from_numpy(mask.astype(np.uint8)))
        bar.advance(len(mu[-1]))
    small = {name: torch.from_numpy(getattr(flush, name)) for name in ("actions", "rewards", "terminated", "lengths")}
    masks = torch.cat(allowed) if allowed else None
    return Latents(mu=torch.cat(mu), logvar=torch.cat(logvar), allowed=masks, **small)


@torch.inference_mode()
def dream_starts(agent: Agent, latents: Latents, begins: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """What dreams begin with, out of the last episodes.

    begins: steps of those episodes (none: the task's). Returns mu and logvar of frames, (S, 2, Z) float16, and h and c
    of an M that has followed the episode so far, (S, 2, H) float16: zeros for first frames.
    """
    begins = begins or agent.task.dream_begins
    quota = max(1, _STARTS // len(begins))
    # The latest episodes that come so far; short trials may have none.
    rows = {step: (latents.lengths > step).nonzero().squeeze(1)[-quota:] for step in begins}
    rows = {step: some for step, some in rows.items() if len(some)} or {0: torch.arange(len(latents.lengths))[-quota:]}
    chosen = torch.tensor(sorted({one for some in rows.values() for one in some.tolist()}))
    lengths = latents.lengths[chosen]
    actions = (latents.lengths.cumsum(0) - latents.lengths)[chosen]
    frames = actions + chosen
    h, c = agent.memory.initial_state(len(chosen))
    codes, states = [], []
    for step in range(max(rows) + 1):
        if step in rows:
            there = torch.isin(chosen, rows[step])
            here = frames[there] + step
            codes.append(torch.stack([latents.mu[here], latents.logvar[here]], dim=1))
            states.append(torch.stack([h, c], dim=1).cpu()[there])
        now = (lengths - 1).clamp(max=step)
        z, action = latents.mu[frames + now].float(), latents.actions[actions + now]
        h, c = agent.memory.step(z.to(agent.device), action.to(agent.device), (h, c))
    return torch.cat(codes).half(), torch.cat(states).half()
