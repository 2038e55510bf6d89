"""Training M on the latents of recorded episodes."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodels.core.device import generator, precision
from worldmodels.core.errors import UserError
from worldmodels.core.fit import HeldOut, LearningRate, Loss, Objective, Schedule, fit
from worldmodels.core.halves import PARTS, Halves
from worldmodels.core.held_out import held_out_episodes
from worldmodels.core.seeds import Stream
from worldmodels.core.settings import without_idle
from worldmodels.memory.config import LATER, MemoryConfig
from worldmodels.memory.dropout import dropout_mask
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN, Counts, State, Targets, memory_loss

_MEASURED_BATCHES = 10
"""Batches over which M's final loss is averaged."""


class Before(NamedTuple):
    """The burn-in: up to P transitions before each sequence, z (B, P, Z) and actions (B, P, A).

    lengths (B,): how many of the P transitions of each row are valid; the others are padding at the end; steps (B,):
    how many steps of its episode are behind the first of each row.
    """

    z: Tensor
    actions: Tensor
    lengths: Tensor
    steps: Tensor


class SequenceSampler:
    """Random sequences of ``length`` transitions, with z sampled anew from N(mu, exp(logvar)) for every batch.

    A batch depends on the seed and the step alone. burn_in: the most transitions that :meth:`before` returns;
    shows_end: :attr:`~worldmodels.tasks.base.Task.shows_end`; chosen: the episodes from which sequences are drawn, (E,)
    bool (None: all). Raises :class:`UserError` if these episodes hold no transitions.
    """

    def __init__(
        self,
        latents: Latents,
        batch: int,
        length: int,
        seed: int,
        burn_in: int = 0,
        shows_end: bool = True,
        chosen: np.ndarray | None = None,
    ) -> None:
        self._latents, self._batch, self._seed, self._burn_in = latents, batch, seed, burn_in
        self._shows_end = shows_end
        lengths = latents.lengths.numpy()
        drawn = lengths if chosen is None else np.where(chosen, lengths, 0)
        self.length = int(min(length, drawn.max(initial=0)))
        if self.length < 1:
            raise UserError("the episodes hold no transitions; collect again")
        self._lengths = lengths
        self._frame_start = np.concatenate([[0], np.cumsum(lengths + 1)])[:-1]
        self._step_start = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        # Long episodes are drawn more often, so that every transition has about the same chance.
        self._chance = drawn / drawn.sum()

    def _chosen(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Episode and first transition of every sequence, each (B,)."""
        rng = np.random.default_rng([self._seed, Stream.SEQUENCES, step])
        episodes = rng.choice(len(self._lengths), self._batch, p=self._chance)
        # Starts are drawn from before the episode up to its last transition and then clipped to the episode, so that
        # its first and last transitions, among them deaths, are drawn as often as those in the middle.
        lengths = self._lengths[episodes]
        start = np.floor(rng.random(self._batch) * (lengths + self.length - 1)).astype(np.int64) - (self.length - 1)
        return episodes, np.clip(start, 0, np.maximum(lengths - self.length, 0))

    def before(self, step: int) -> Before | None:
        """The burn-in of the sequences of :meth:`batch`; None if it is empty for all of them."""
        episodes, start = self._chosen(step)
        lengths = np.minimum(start, self._burn_in)
        if not lengths.any():
            return None
        offset = np.minimum((start - lengths)[:, None] + np.arange(lengths.max()), start[:, None])
        frames = torch.from_numpy(self._frame_start[episodes, None] + offset)
        actions = self._latents.actions[torch.from_numpy(self._step_start[episodes, None] + offset)]
        z = self._sample(frames, step, Stream.BURN_IN_NOISE)
        return Before(z, actions, torch.from_numpy(lengths), torch.from_numpy(start - lengths))

    def steps(self, step: int) -> Tensor:
        """How many steps of its episode are behind the first of each sequence of :meth:`batch`, (B,)."""
        return torch.from_numpy(self._chosen(step)[1])

    def batch(self, step: int) -> tuple[Tensor, Tensor, Targets]:
        """z (B, T, Z), actions (B, T, A) and the targets of training step ``step``."""
        episodes, start = self._chosen(step)
        offset = start[:, None] + np.arange(self.length + 1)  # (B, T+1) frames inside the episode
        exists = offset[:, :-1] < self._lengths[episodes, None]  # transition t needs frame t+1
        frames = self._frame_start[episodes, None] + np.minimum(offset, self._lengths[episodes, None])
        last = self._lengths[episodes, None] - 1
        steps = self._step_start[episodes, None] + np.minimum(offset[:, :-1], last)
        z = self._sample(torch.from_numpy(frames), step)
        ends = (offset[:, :-1] == last) & (self._latents.terminated.numpy()[episodes, None] == 1)
        steps_tensor, masks = torch.from_numpy(steps), self._latents.action_mask
        targets = Targets(
            z[:, 1:],
            self._latents.rewards[steps_tensor],
            torch.from_numpy(ends.astype(np.float32)),
            torch.from_numpy(exists.astype(np.float32)),
            None if masks is None else masks[torch.from_numpy(frames[:, 1:])].float(),
            None if self._shows_end else torch.from_numpy((~ends).astype(np.float32)),
            None if self._latents.health is None else _falls(self._latents.health[torch.from_numpy(frames)]),
        )
        return z[:, :-1], self._latents.actions[steps_tensor], targets

    def _sample(self, frames: Tensor, step: int, stream: int = Stream.MEMORY_NOISE) -> Tensor:
        mu, logvar = self._latents.mu[frames].float(), self._latents.logvar[frames].float()
        return mu + torch.exp(logvar / 2) * torch.randn(mu.shape, generator=generator(self._seed, stream, step))

    def batches(self, step: int) -> Iterator["Sequences"]:
        """Endless batches with their burn-in, starting with the batch of ``step``."""
        while True:
            yield self.batch(step), self.before(step)
            step += 1


def _falls(health: Tensor) -> Tensor:
    """Steps (B, T) in which the health (B, T+1) falls: 1 where it does, 0 where not, and NaN where it is not known."""
    change = health.diff(dim=1)
    return torch.where(change.isnan(), change, (change < 0).float())


Sequences = tuple[tuple[Tensor, Tensor, Targets], Before | None]


def _divided(batch: Sequences) -> list[Tensor]:
    """The numbers of the rows of each part of a batch, such that all parts have burn-ins of about the same length."""
    (z, _, _), before = batch
    order = torch.arange(len(z)) if before is None else torch.argsort(before.lengths, descending=True, stable=True)
    return [order[first::PARTS] for first in range(min(PARTS, len(z)))]


def _rows(batch: Sequences, rows: Tensor) -> Sequences:
    """Some rows of a batch."""
    (z, actions, targets), before = batch
    chosen = Targets(*(None if tensor is None else tensor[rows] for tensor in targets))  # type: ignore[arg-type]
    return (z[rows], actions[rows], chosen), None if before is None else Before(*(tensor[rows] for tensor in before))


class MemoryLoss:
    """M's loss on the batches of ``sampler``, whole and step by step; other arguments: see :func:`train_memory`."""

    def __init__(
        self,
        memory: MDNRNN,
        sampler: SequenceSampler,
        config: MemoryConfig,
        seed: int,
        device: torch.device,
        reward_scale: float = 1.0,
    ) -> None:
        self._memory, self._sampler, self._config, self._seed = memory, sampler, config, seed
        self._device, self._reward_scale = device, reward_scale
        self._halves = Halves([weight for weight in memory.parameters() if weight.requires_grad])

    def objective(self) -> Objective[Sequences]:
        """What the training loop needs."""
        memory, config = self._memory, self._config
        heads = {"reward": memory.reward_head, "end": memory.end_head, "hit": memory.hit_head, "mask": memory.mask_head}
        parts = ("nll", *(name for name, head in heads.items() if head is not None))
        lr = LearningRate(config.lr, final_fraction=0.01)
        return Objective("memory", memory, self.training, parts, lr, config.clip)

    def training(self, batch: Sequences, step: int) -> Loss:
        """The loss of the batch of training step ``step``, with dropout, if there is any."""
        memory, config, steps = self._memory, self._config, self._sampler.steps(step)
        mask = None
        if config.dropout:
            drawn = torch.rand(
                (config.batch, memory.latent_size + memory.hidden_size),
                generator=generator(self._seed, Stream.MEMORY_DROPOUT, step),
            )
            mask = dropout_mask(drawn, config.dropout).to(self._device)
        if self._device.type != "cpu":
            return self.whole(batch, steps, mask)
        counts = Counts.of(batch[0][2])
        parts = [
            partial(self.whole, _rows(batch, rows), steps[rows], None if mask is None else mask[rows], counts)
            for rows in _divided(batch)
        ]
        return self._halves.sum(parts)

    def whole(self, batch: Sequences, steps: Tensor, mask: Tensor | None = None, counts: Counts | None = None) -> Loss:
        """The loss of sequences that begin after ``steps`` (B,) steps; mask: dropout (B, Z+H), None for none.

        counts: see :func:`memory_loss`.
        """
        return self.scored(batch, self.hidden_states(batch, steps, self.burnt_in(batch, mask), mask), counts)

    def burnt_in(self, batch: Sequences, mask: Tensor | None = None) -> State | None:
        """M's state after the burn-in, if there is any."""
        _, before = batch
        if before is None:
            return None
        z, actions, lengths, begun = (tensor.to(self._device) for tensor in before)
        with precision(self._device):
            return self._memory.follow(z, actions, lengths, mask, begun)

    def hidden_states(self, batch: Sequences, steps: Tensor, state: State | None, mask: Tensor | None = None) -> Tensor:
        """h (B, T, H) along the sequences, from ``state``."""
        (z, actions, _), _ = batch
        z, actions, steps = (tensor.to(self._device) for tensor in (z, actions, steps))
        with precision(self._device):
            return self._memory.hidden_states(z, actions, state, mask, steps)

    def scored(self, batch: Sequences, hidden: Tensor, counts: Counts | None = None) -> Loss:
        """The loss for hidden states (B, T, H); counts: see :func:`memory_loss`."""
        memory, config = self._memory, self._config
        (_, _, targets), _ = batch
        targets = targets.to(self._device)
        with precision(self._device):
            prediction = memory.scored(hidden, targets.z)
        targets = targets._replace(rewards=targets.rewards / self._reward_scale)
        mask_logits = memory.mask_logits(targets.z) if memory.mask_head else None
        return memory_loss(prediction, targets, config.end_weight, mask_logits, config.hit_weight, counts)


def train_memory(
    memory: MDNRNN,
    latents: Latents,
    config: MemoryConfig,
    seed: int,
    device: torch.device,
    directory: Path,
    reward_scale: float = 1.0,
    identity: str = "",
    shows_end: bool = True,
    held_out_seed: int = 0,
) -> dict[str, float]:
    """Train ``memory`` in place; return the mean of its loss, by named parts, over further batches of the same latents.

    That loss is without dropout, as an agent acts. Of episodes that are held out, the loss is returned, too.

    reward_scale: rewards are divided by it during training, so that large rewards do not dominate the loss; the trained
    M predicts rewards in their original unit. identity: a text for everything else that the result depends on, such as
    a digest of the latents; shows_end: that of the task: without it, M does not learn the last frames of episodes that
    the world ended; held_out_seed: decides which episodes are held out. Training continues from the checkpoint in
    ``directory``, if there is one; a checkpoint with other settings, another seed, another number of transitions or
    another identity is a :class:`UserError`.
    """
    memory.to(device)
    memory.scale_reward(1 / reward_scale)
    if memory.end_head is not None:
        memory.end_weight.fill_(config.end_weight)
    if memory.hit_head is not None:
        if latents.health is None or not latents.health.isfinite().any():
            raise UserError(
                "expected episodes with the health, for M's hit head; collect again, or leave out --memory.hit-weight"
            )
        memory.hit_weight.fill_(config.hit_weight)
    aside = held_out_episodes(len(latents.lengths), config.held_out, held_out_seed)
    drawing = partial(SequenceSampler, latents, config.batch, config.length, seed, config.burn_in, shows_end)
    sampler = drawing(~aside if aside.any() else None)

    loss = MemoryLoss(memory, sampler, config, seed, device, reward_scale)

    @torch.no_grad()
    def measured(source: SequenceSampler, first: int) -> dict[str, float]:
        """The mean loss of the batches from ``first``, by named parts, without dropout."""
        totals: dict[str, float] = {}
        batches = source.batches(first)
        for step in range(first, first + _MEASURED_BATCHES):
            for name, value in loss.whole(next(batches), source.steps(step))[1].items():
                totals[name] = totals.get(name, 0.0) + value.item() / _MEASURED_BATCHES
        return totals

    objective = loss.objective()
    # The number of dream models does not affect the training of this M.
    settings = {name: value for name, value in without_idle(config, LATER).items() if name != "dream_models"}
    about = {"memory": settings, "seed": seed, "steps": len(latents.actions), "identity": identity}
    if not shows_end:
        about["shows_end"] = False
    held_out = None
    if aside.any():
        about["held_out_seed"] = held_out_seed
        others = drawing(aside)
        held_out = HeldOut(partial(measured, others, 0), objective.parts)
    items, schedule = config.batch * sampler.length, Schedule(config.steps)
    identified = json.dumps(about)
    fit("memory", [objective], sampler.batches, schedule, directory, items, identified, "transitions", held_out)
    totals = measured(sampler, config.steps)
    if held_out is not None:
        totals |= {f"held_out_{name}": value for name, value in held_out.measure().items()}
    memory.scale_reward(reward_scale)
    return totals
