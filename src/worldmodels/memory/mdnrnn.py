"""M: an LSTM that predicts the density of the next latent and, with further heads, reward, end and action mask.

(Ha & Schmidhuber 2018, section 2.2.) Legend: B batch, T time, N rollouts, Z latent, A action, C controls, H hidden,
K mixtures.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from worldmodels.memory.dropout import masked_follow, masked_sequence
from worldmodels.memory.mixture import Mixture, head_log_likelihood, log_likelihood, mixture_from

_MASK_HIDDEN = 128


class Prediction(NamedTuple):
    """M's prediction of the next step: mixture of the next z; reward, logit of the end and of a hit (...), or None."""

    mixture: Mixture
    reward: Tensor | None
    end_logit: Tensor | None
    hit_logit: Tensor | None = None


class Scored(NamedTuple):
    """What :func:`memory_loss` needs of a prediction: instead of the mixture, the log density (..., Z) of a next z."""

    log_likelihood: Tensor
    reward: Tensor | None
    end_logit: Tensor | None
    hit_logit: Tensor | None = None


State = tuple[Tensor, Tensor]
"""Hidden and cell state (h, c), each (N, H)."""


def restart_inputs(state: State) -> list[Tensor]:
    """1 for rows whose state is zero, at which an episode begins, and 0 for others: one tensor (N, 1)."""
    h, c = state
    return [((h == 0).all(dim=1) & (c == 0).all(dim=1)).to(h.dtype).unsqueeze(1)]


class MDNRNN(nn.Module):
    """p(z', reward, end, hit given z, action, hidden state).

    reward, end: whether there is such a head; mask_size: controls C of the action mask head, 0 for none; restart:
    whether M has one more input, which is 1 at the first step of an episode and else 0, as in the authors' code for
    Doom. An episode begins where the state is zero. clock: steps that count as 1 on M's clock, a further input that
    tells how many steps of the episode are behind, 0 for none; hit: whether there is a head for hits, steps in which
    the health falls. Without all these, M has 422,368 trained parameters for
    Z=32, A=3, H=256 and K=5.
    """

    end_weight: Tensor
    """Weight of ends in the training loss, by which the predicted odds of an end are too high."""
    hit_weight: Tensor
    """The same for hits."""

    def __init__(
        self,
        latent_size: int,
        action_size: int,
        hidden_size: int = 256,
        mixtures: int = 5,
        reward: bool = False,
        end: bool = False,
        mask_size: int = 0,
        restart: bool = False,
        clock: int = 0,
        hit: bool = False,
    ) -> None:
        super().__init__()
        self.latent_size, self.action_size = latent_size, action_size
        self.hidden_size, self.mixtures, self.restart, self.clock = hidden_size, mixtures, restart, clock
        # The authors' LSTM has one bias per gate; torch's second one stays zero and is not trained.
        self.lstm = nn.LSTM(latent_size + action_size + restart + bool(clock), hidden_size, batch_first=True)
        self.mixture_head = nn.Linear(hidden_size, latent_size * 3 * mixtures)
        self.reward_head = nn.Linear(hidden_size, 1) if reward else None
        self.end_head = nn.Linear(hidden_size, 1) if end else None
        # The mask head reads z and not h, because the valid controls depend on the z that is sampled from the mixture.
        self.mask_head = (
            nn.Sequential(nn.Linear(latent_size, _MASK_HIDDEN), nn.ReLU(), nn.Linear(_MASK_HIDDEN, mask_size))
            if mask_size
            else None
        )
        self.hit_head = nn.Linear(hidden_size, 1) if hit else None
        if end:
            self.register_buffer("end_weight", torch.ones(()))
        if hit:
            self.register_buffer("hit_weight", torch.ones(()))
        with torch.no_grad():
            _, _, bias, second_bias = self._weights
            second_bias.zero_()
            bias.zero_()
            bias[hidden_size : 2 * hidden_size] = 1.0  # the forget gate is open at first, as in the authors' code
        second_bias.requires_grad_(False)

    def unweighted_end_logit(self, end_logit: Tensor) -> Tensor:
        """The end head's logit (...) corrected for the weight of ends: its sigmoid is the probability of an end."""
        return end_logit - self.end_weight.log()

    def unweighted_hit_logit(self, hit_logit: Tensor) -> Tensor:
        """The hit head's logit (...) corrected for the weight of hits: its sigmoid is the probability of a hit."""
        return hit_logit - self.hit_weight.log()

    @torch.no_grad()
    def scale_reward(self, factor: float) -> None:
        """Multiply the reward head's output by ``factor``; without a reward head, do nothing."""
        if self.reward_head is not None:
            self.reward_head.weight.mul_(factor)
            self.reward_head.bias.mul_(factor)

    def mask_logits(self, z: Tensor) -> Tensor:
        """Logits (..., C) of the action mask at z (..., Z); the sigmoid is the probability that a control is valid."""
        assert self.mask_head is not None
        logits: Tensor = self.mask_head(z).float()
        return logits

    @property
    def _weights(self) -> list[Tensor]:
        """Input weights (4H, Z+A), state weights (4H, H), biases (4H,), and torch's second biases (4H,), all 0."""
        return list(self.lstm.parameters())

    def initial_state(self, num: int) -> State:
        """Zero state for ``num`` rollouts."""
        weight = self._weights[1]
        return weight.new_zeros(num, self.hidden_size), weight.new_zeros(num, self.hidden_size)

    def forward(
        self,
        z: Tensor,
        actions: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Prediction:
        """Predictions (B, T) along sequences z (B, T, Z) and actions (B, T, A), from ``state`` (None: zeros).

        mask: a dropout mask (B, Z+H), by which z and h are multiplied where they enter a step; None for none; steps:
        (B,), how many steps of its episode are behind the first of each sequence, for an M with a clock (None: none).
        """
        return self.heads(self.hidden_states(z, actions, state, mask, steps))

    def hidden_states(
        self,
        z: Tensor,
        actions: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """h (B, T, H) after every step; the arguments are those of :meth:`forward`."""
        inputs = self._sequence_inputs(z, actions, state, mask, steps)
        if mask is not None:
            begin = self.initial_state(len(z)) if state is None else state
            return masked_sequence(self._weights[:3], inputs, begin, mask[:, self.latent_size :])
        hidden: Tensor = self.lstm(inputs, None if state is None else (state[0][None], state[1][None]))[0]
        return hidden

    @torch.no_grad()
    def follow(
        self,
        z: Tensor,
        actions: Tensor,
        lengths: Tensor,
        mask: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> State:
        """The state after the first ``lengths`` (B,) steps of z (B, T, Z) and actions (B, T, A), without gradients.

        A row of length 0 has a zero state. mask, steps: as for :meth:`forward`.
        """
        h, c = self.initial_state(len(z))
        rows = lengths.nonzero().squeeze(1)
        if not len(rows):
            return h, c
        if mask is not None:
            inputs = self._sequence_inputs(z, actions, None, mask, steps)
            return masked_follow(self._weights[:3], inputs, lengths, (h, c), mask[:, self.latent_size :])
        inputs = self._sequence_inputs(z, actions, None, None, steps)
        if z.device.type != "cpu":
            packed = pack_padded_sequence(inputs[rows], lengths[rows].cpu(), batch_first=True, enforce_sorted=False)
            _, (last_h, last_c) = self.lstm(packed)
            h[rows], c[rows] = last_h[0].float(), last_c[0].float()
            return h, c
        # On a CPU, torch computes packed sequences with slower products than whole ones. So the longest rows come
        # first, and the LSTM runs from each row's end to the next one's, over those rows that are as long.
        order = torch.argsort(lengths, descending=True, stable=True)
        inputs, left, start = inputs[order], lengths[order].tolist(), 0
        for stop in sorted({*left} - {0}):
            running = order[: sum(length > start for length in left)]
            part = inputs[: len(running), start:stop]
            _, (part_h, part_c) = self.lstm(part, (h[running][None], c[running][None]))
            h[running], c[running], start = part_h[0].float(), part_c[0].float(), stop
        return h, c

    def step(self, z: Tensor, actions: Tensor, state: State, steps: Tensor | None = None) -> State:
        """The state after z (N, Z) and actions (N, A) from ``state``; the heads are not evaluated.

        steps: (N,), how many steps of each row's episode are behind it, for an M with a clock (None: none are).
        """
        from_inputs, from_state, bias, _ = self._weights
        inputs = torch.cat([z, actions, *self.restart_inputs(state), *self._clock_inputs(z, steps)], dim=-1)
        # One fused product each for inputs and state; gates in torch's order i, f, g, o.
        gates = torch.addmm(bias, inputs, from_inputs.t())
        gates = torch.addmm(gates, state[0], from_state.t())
        i, f, g, o = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell

    def restart_inputs(self, state: State) -> list[Tensor]:
        """The restart inputs (N, 1) of rows with this state, as the only element; empty for an M without that input."""
        return restart_inputs(state) if self.restart else []

    def _clock_inputs(self, z: Tensor, steps: Tensor | None) -> list[Tensor]:
        """The clock (N, 1) of rows z (N, Z) after ``steps`` (N,), as the only element; empty for an M without one."""
        if not self.clock:
            return []
        return [z.new_zeros(len(z), 1) if steps is None else (steps.to(z.dtype) / self.clock).unsqueeze(1)]

    def _sequence_inputs(
        self,
        z: Tensor,
        actions: Tensor,
        state: State | None,
        mask: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> Tensor:
        """The inputs of the LSTM (B, T, I) along sequences z (B, T, Z) and actions (B, T, A).

        I is Z + A, and one more each for restart and clock. Of ``mask`` (B, Z+H), only the part for z is applied.
        """
        parts = [z if mask is None else z * mask[:, None, : self.latent_size], actions]
        if self.restart:
            first = z.new_zeros(*z.shape[:2], 1)
            first[:, 0] = 1.0 if state is None else restart_inputs(state)[0].to(first.dtype)
            parts.append(first)
        if self.clock:
            passed = torch.arange(z.shape[1], device=z.device, dtype=z.dtype).expand(len(z), -1)
            begun = passed if steps is None else passed + steps.to(z.dtype).unsqueeze(1)
            parts.append((begun / self.clock).unsqueeze(2))
        return torch.cat(parts, dim=-1)

    def heads(self, hidden: Tensor) -> Prediction:
        """The prediction from hidden states (..., H)."""
        return Prediction(mixture_from(self.mixture_head(hidden), self.latent_size), *self._other_heads(hidden))

    def scored(self, hidden: Tensor, z: Tensor) -> Scored:
        """The prediction from hidden states (..., H), as the loss needs it for the recorded next z (..., Z)."""
        return Scored(head_log_likelihood(self.mixture_head, hidden, z), *self._other_heads(hidden))

    def _other_heads(self, hidden: Tensor) -> list[Tensor | None]:
        """Reward, logit of the end and of a hit (...), or None for each without a head."""
        heads = (self.reward_head, self.end_head, self.hit_head)
        return [None if head is None else head(hidden).squeeze(-1).float() for head in heads]


class Targets(NamedTuple):
    """The recorded next steps: z (B, T, Z), rewards (B, T), ends (B, T) in {0, 1}.

    mask (B, T): 1 for steps of the episode and 0 for padding after its end; action_mask (B, T, C): 1 for controls that
    are valid at that z, or None for a task without action masks; pictures (B, T): 0 where z is that of a frame that
    shows nothing, and else 1, or None if all frames show something; hits (B, T): 1 where the health fell, NaN where it
    is not known, or None where it was not recorded.
    """

    z: Tensor
    rewards: Tensor
    ends: Tensor
    mask: Tensor
    action_mask: Tensor | None = None
    pictures: Tensor | None = None
    hits: Tensor | None = None

    def to(self, device: torch.device) -> "Targets":
        """The targets on ``device``."""
        return Targets(*(None if tensor is None else tensor.to(device) for tensor in self))  # type: ignore[arg-type]


class Counts(NamedTuple):
    """How many steps the means of :func:`memory_loss` are over: of the episodes, with a picture, of known health."""

    exists: Tensor
    shown: Tensor
    known: Tensor | None

    @classmethod
    def of(cls, targets: Targets) -> "Counts":
        """Those of the targets."""
        known = None if targets.hits is None else (targets.mask * targets.hits.isfinite()).sum().clamp(min=1)
        count = targets.mask.sum()
        shown = count if targets.pictures is None else (targets.mask * targets.pictures).sum().clamp(min=1)
        return cls(count, shown, known)


def memory_loss(
    prediction: Prediction | Scored,
    targets: Targets,
    end_weight: float = 1.0,
    mask_logits: Tensor | None = None,
    hit_weight: float = 1.0,
    counts: Counts | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss, which is the sum of its parts, and the parts by name.

    "nll" is the negative log likelihood of z in nats per latent dimension, "reward" the squared error, "end" the cross
    entropy in nats, in which ends are weighted by ``end_weight`` because they are rare, "hit" the same of hits, with
    ``hit_weight``, and "mask" the cross entropy of ``mask_logits`` (B, T, C), M's logits at the target z, in nats per
    control. All are means over the steps whose ``targets.mask`` is 1; "nll" and "mask", which are about the frame, also
    leave out frames that show nothing, and "hit" the steps whose health is not known.

    counts: those by which the sums are divided, of the whole batch if these are some of its rows; the losses of all its
    parts then add up to that of the batch (None: those of the targets).
    """
    exists = targets.mask
    shown = exists if targets.pictures is None else exists * targets.pictures
    count, shown_count, known_count = Counts.of(targets) if counts is None else counts
    if isinstance(prediction, Scored):
        density = prediction.log_likelihood
    else:
        density = log_likelihood(prediction.mixture, targets.z)
    nll = -(density.mean(-1) * shown).sum() / shown_count
    parts = {"nll": nll}
    if prediction.reward is not None:
        parts["reward"] = ((prediction.reward - targets.rewards).square() * exists).sum() / count
    if prediction.end_logit is not None:
        weight = torch.tensor(end_weight, device=exists.device)
        cross_entropy = F.binary_cross_entropy_with_logits(
            prediction.end_logit, targets.ends, pos_weight=weight, reduction="none"
        )
        parts["end"] = (cross_entropy * exists).sum() / count
    if prediction.hit_logit is not None:
        assert targets.hits is not None and known_count is not None
        known = exists * targets.hits.isfinite()
        weight = torch.tensor(hit_weight, device=exists.device)
        cross_entropy = F.binary_cross_entropy_with_logits(
            prediction.hit_logit, targets.hits.nan_to_num(), pos_weight=weight, reduction="none"
        )
        parts["hit"] = (cross_entropy * known).sum() / known_count
    if mask_logits is not None:
        assert targets.action_mask is not None
        cross_entropy = F.binary_cross_entropy_with_logits(mask_logits, targets.action_mask, reduction="none")
        parts["mask"] = (cross_entropy.mean(-1) * shown).sum() / shown_count
    return torch.stack(list(parts.values())).sum(), parts
