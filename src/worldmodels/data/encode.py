"""Turning recorded frames into latents, and what dreams start from."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.core import interrupt
from worldmodels.core.progress import Progress
from worldmodels.data.episodes import Shard
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.tasks import Task
from worldmodels.vision.base import Vision, encode_frames

_BATCH = 256
_STARTS = 1000
"""Moments that an agent keeps to start dreams from (paper's code)."""


def encode_shard(vision: Vision, task: Task, shard: Shard, bar: Progress) -> Latents:
    """The latents of a shard, a batch of frames at a time."""
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
    small = {name: torch.from_numpy(getattr(shard, name)) for name in ("actions", "rewards", "terminated", "lengths")}
    return Latents(mu=torch.cat(mu), logvar=torch.cat(logvar), action_mask=torch.cat(masks) if masks else None, **small)


@torch.inference_mode()
def dream_starts(memory: MDNRNN, latents: Latents, start_steps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What dreams start from, out of the last episodes.

    start_steps: steps of those episodes at which dreams start. Returns mu and logvar of frames, (S, 2, Z) float16, and
    h and c of an M that has followed the episode so far, (S, 2, H) float16: zeros for first frames.
    """
    device = next(memory.parameters()).device
    quota = max(1, _STARTS // len(start_steps))
    # The latest episodes that come so far; short trials may have none.
    rows = {step: (latents.lengths > step).nonzero().squeeze(1)[-quota:] for step in start_steps}
    rows = {step: some for step, some in rows.items() if len(some)} or {0: torch.arange(len(latents.lengths))[-quota:]}
    chosen = torch.tensor(sorted({one for some in rows.values() for one in some.tolist()}))
    lengths = latents.lengths[chosen]
    actions = (latents.lengths.cumsum(0) - latents.lengths)[chosen]
    frames = actions + chosen
    h, c = memory.initial_state(len(chosen))
    codes, states = [], []
    for step in range(max(rows) + 1):
        if step in rows:
            there = torch.isin(chosen, rows[step])
            here = frames[there] + step
            codes.append(torch.stack([latents.mu[here], latents.logvar[here]], dim=1))
            states.append(torch.stack([h, c], dim=1).cpu()[there])
        now = (lengths - 1).clamp(max=step)
        z, action = latents.mu[frames + now].float(), latents.actions[actions + now]
        h, c = memory.step(z.to(device), action.to(device), (h, c))
    return torch.cat(codes).half(), torch.cat(states).half()
