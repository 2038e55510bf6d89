"""Turning recorded frames into latents, and what dreams begin with."""

import torch
from torch import Tensor

from worldmodels import interrupt
from worldmodels.agent import Agent
from worldmodels.progress import Progress
from worldmodels.storage.episodes import Flush
from worldmodels.storage.latents import Latents

_BATCH = 256
_STARTS = 1000
"""First frames that an agent keeps to begin dreams with (paper's code)."""


def encoded(agent: Agent, flush: Flush, bar: Progress) -> Latents:
    """The latents of a flush, a batch of frames at a time."""
    mu, logvar = [], []
    for start in range(0, flush.num_frames, _BATCH):
        interrupt.check()
        coded = agent.encode(flush.frames(start, min(start + _BATCH, flush.num_frames)))
        mu.append(coded[0].half().cpu())
        logvar.append(coded[1].half().cpu())
        bar.advance(len(mu[-1]))
    small = (torch.from_numpy(one) for one in (flush.actions, flush.rewards, flush.terminated, flush.lengths))
    return Latents(torch.cat(mu), torch.cat(logvar), *small)


def first_frames(latents: Latents) -> Tensor:
    """mu and logvar of the first frames of the last episodes, (S, 2, Z) float16."""
    first = latents.lengths.cumsum(0) - latents.lengths + torch.arange(len(latents.lengths))
    return torch.stack([latents.mu[first], latents.logvar[first]], dim=1)[-_STARTS:].half()
