"""Training M on the latents of recorded episodes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldmodels.config import MemoryConfig
from worldmodels.device import generator
from worldmodels.errors import UserError
from worldmodels.memory.mdnrnn import MDNRNN, Targets, memory_loss
from worldmodels.storage.latents import Latents
from worldmodels.training import Loss, Schedule, fit


class SequenceSampler:
    """Random sequences of ``length`` transitions, with z drawn anew from N(mu, exp(logvar)) every time.

    A batch is a function of the seed and the step alone.
    """

    def __init__(self, latents: Latents, batch: int, length: int, seed: int) -> None:
        self._latents, self._batch, self._seed = latents, batch, seed
        lengths = latents.lengths.numpy()
        self.length = int(min(length, lengths.max(initial=0)))
        if self.length < 1:
            raise UserError("the episodes hold no transitions; collect again")
        self._lengths = lengths
        self._frame_start = np.concatenate([[0], np.cumsum(lengths + 1)])[:-1]
        self._step_start = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        # Long episodes are drawn more often, so that every transition has about the same chance.
        self._chance = lengths / lengths.sum()

    def batch(self, step: int) -> tuple[Tensor, Tensor, Targets]:
        """z (B, T, Z), actions (B, T, A) and the targets of training step ``step``."""
        rng = np.random.default_rng([self._seed, 21, step])
        episodes = rng.choice(len(self._lengths), self._batch, p=self._chance)
        # Starts reach over both edges of the episode and are moved inside: so its first and last transitions, deaths
        # among them, are as common as those in the middle.
        lengths = self._lengths[episodes]
        start = np.floor(rng.random(self._batch) * (lengths + self.length - 1)).astype(np.int64) - (self.length - 1)
        start = np.clip(start, 0, np.maximum(lengths - self.length, 0))
        offset = start[:, None] + np.arange(self.length + 1)  # (B, T+1) frames inside the episode
        exists = offset[:, :-1] < self._lengths[episodes, None]  # transition t needs frame t+1
        frames = self._frame_start[episodes, None] + np.minimum(offset, self._lengths[episodes, None])
        last = self._lengths[episodes, None] - 1
        steps = self._step_start[episodes, None] + np.minimum(offset[:, :-1], last)
        z = self._sample(torch.from_numpy(frames), step)
        ends = (offset[:, :-1] == last) & (self._latents.terminated.numpy()[episodes, None] == 1)
        steps_tensor = torch.from_numpy(steps)
        targets = Targets(
            z[:, 1:],
            self._latents.rewards[steps_tensor],
            torch.from_numpy(ends.astype(np.float32)),
            torch.from_numpy(exists.astype(np.float32)),
        )
        return z[:, :-1], self._latents.actions[steps_tensor], targets

    def _sample(self, frames: Tensor, step: int) -> Tensor:
        mu, logvar = self._latents.mu[frames].float(), self._latents.logvar[frames].float()
        return mu + torch.exp(logvar / 2) * torch.randn(mu.shape, generator=generator(self._seed, 22, step))

    def batches(self, step: int) -> Iterator[tuple[Tensor, Tensor, Targets]]:
        """Endless batches, beginning with that of ``step``."""
        while True:
            yield self.batch(step)
            step += 1


def train_memory(
    memory: MDNRNN, latents: Latents, config: MemoryConfig, seed: int, device: torch.device, directory: Path
) -> dict[str, float]:
    """Train ``memory`` in place; return its mean loss over batches drawn after the last step."""
    memory.to(device)
    sampler = SequenceSampler(latents, config.batch, config.length, seed)

    def loss(batch: tuple[Tensor, Tensor, Targets], step: int) -> Loss:
        z, actions, targets = batch
        prediction = memory(z.to(device), actions.to(device))
        return memory_loss(prediction, Targets(*(one.to(device) for one in targets)), config.end_weight)

    columns = ("nll", *(["reward"] if memory.reward_head else []), *(["end"] if memory.end_head else []))
    schedule = Schedule(config.steps, config.lr, final_fraction=0.01, clip=config.clip)
    fit("memory", memory, sampler.batches, loss, schedule, directory, columns, config.batch * sampler.length)
    totals: dict[str, float] = {}
    rounds = 10
    with torch.no_grad():
        for step in range(config.steps, config.steps + rounds):
            _, parts = loss(sampler.batch(step), step)
            for name, value in parts.items():
                totals[name] = totals.get(name, 0.0) + value.item() / rounds
    return totals
