"""The training data of M: recorded episodes, encoded by one V."""

from dataclasses import dataclass

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

    def __repr__(self) -> str:
        frames, size = self.mu.shape
        return f"Latents({len(self.lengths)} episodes, {frames:,} frames, latent_size={size})"
