"""The training data of M: recorded episodes, encoded by one V."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Latents:
    """E concatenated episodes, of F frames and S steps in all; an episode of T actions has T+1 frames and T steps.

    mu, logvar: (F, Z) float16, mean and log variance of each frame's z; actions: (S, A) float32, as M sees them;
    rewards: (S,) float32; terminated: (E,) uint8, 1 where the world ended the episode and 0 where a time limit did;
    lengths: (E,) int64, steps of each episode; action_mask: (F, C) uint8, 1 for controls that are valid at that frame,
    or None for a task without action masks; health: (F,) float32, at each frame, NaN where it is not known, or None
    where it was not recorded at all.
    """

    mu: Tensor
    logvar: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor
    action_mask: Tensor | None = None
    health: Tensor | None = None

    def of(self, numbers: Sequence[int], mu: Tensor | None = None) -> Self:
        """The episodes with these numbers, without masks and health; mu: of their frames, if not as recorded."""
        chosen = torch.tensor(numbers)
        steps = [slice(start, end) for start, end in places(self.lengths, chosen)]
        frames = [slice(start, end) for start, end in places(self.lengths + 1, chosen)]
        return type(self)(
            mu=torch.cat([self.mu[part] for part in frames]) if mu is None else mu,
            logvar=torch.cat([self.logvar[part] for part in frames]),
            actions=torch.cat([self.actions[part] for part in steps]),
            rewards=torch.cat([self.rewards[part] for part in steps]),
            terminated=self.terminated[chosen],
            lengths=self.lengths[chosen],
        )

    def __repr__(self) -> str:
        frames, size = self.mu.shape
        return f"Latents({len(self.lengths)} episodes, {frames:,} frames, latent_size={size})"


def places(lengths: Tensor, chosen: Tensor) -> list[tuple[int, int]]:
    """Where the ``chosen`` (n,) of concatenated parts with these lengths begin and end."""
    ends = lengths.cumsum(0)
    return list(zip((ends - lengths)[chosen].tolist(), ends[chosen].tolist(), strict=True))
