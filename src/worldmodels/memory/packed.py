"""M with packed weights, for fast dreams: one product for all gates, one for all heads, and given random numbers.

Legend: N rows, Z latent, A action, H hidden, K mixtures.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodels.memory.mdnrnn import MDNRNN, State, restart_inputs


class Drawn(NamedTuple):
    """The sampled z (N, Z) float32; predicted reward, logit of the end and of a hit (N,), or None without that head."""

    z: Tensor
    reward: Tensor | None
    end_logit: Tensor | None
    hit_logit: Tensor | None = None


class PackedMemory:
    """A frozen copy of M's weights in ``dtype``; the cell state stays in float32.

    On processors with bfloat16 instructions, bfloat16 products run several times as fast as float32 ones; the rounding
    errors are smaller than the noise that a dream adds.
    """

    def __init__(self, memory: MDNRNN, dtype: torch.dtype = torch.float32) -> None:
        z, h, k = memory.latent_size, memory.hidden_size, memory.mixtures
        self.latent_size, self.hidden_size, self.mixtures, self.dtype = z, h, k, dtype
        from_inputs, from_state, bias, _ = (weight.detach().float() for weight in memory.lstm.parameters())
        # torch orders the gates as i, f, g, o; with g last, a single sigmoid covers the other three.
        order = torch.cat([torch.arange(2 * h), torch.arange(3 * h, 4 * h), torch.arange(2 * h, 3 * h)])
        order = order.to(bias.device)
        self._gates = torch.cat([from_inputs, from_state], dim=1)[order].t().to(dtype).contiguous()
        self._gates_bias = bias[order].to(dtype)
        # From (Z, 3, K) to (3, K, Z): every operation of the sampling then works on contiguous rows of Z numbers.
        rows = torch.arange(3 * z * k, device=bias.device).reshape(z, 3, k).permute(1, 2, 0).reshape(-1)
        heads = [(memory.mixture_head.weight.detach()[rows], memory.mixture_head.bias.detach()[rows])]
        for head in (memory.reward_head, memory.end_head, memory.hit_head):
            if head is not None:
                heads.append((head.weight.detach(), head.bias.detach()))
        self._heads = torch.cat([weight for weight, _ in heads]).float().t().to(dtype).contiguous()
        self._heads_bias = torch.cat([bias for _, bias in heads]).to(dtype)
        self._restart, self._clock = memory.restart, memory.clock
        self._has_reward, self._has_end = memory.reward_head is not None, memory.end_head is not None
        self._has_hit = memory.hit_head is not None
        self._log_end_weight = memory.end_weight.log() if self._has_end else None
        self._log_hit_weight = memory.hit_weight.log() if self._has_hit else None

    def unweighted_end_logit(self, end_logit: Tensor) -> Tensor:
        """As :meth:`MDNRNN.unweighted_end_logit`."""
        assert self._log_end_weight is not None
        return end_logit - self._log_end_weight

    def unweighted_hit_logit(self, hit_logit: Tensor) -> Tensor:
        """As :meth:`MDNRNN.unweighted_hit_logit`."""
        assert self._log_hit_weight is not None
        return hit_logit - self._log_hit_weight

    def step(
        self,
        z: Tensor,
        actions: Tensor,
        state: State,
        mask: Tensor | None = None,
        steps: Tensor | None = None,
    ) -> State:
        """The state (h, c), each (N, H) float32, after z (N, Z) and actions (N, A), both float32, from ``state``.

        mask: a dropout mask (N, Z+H), by which z and h are multiplied where they enter the step; None for none; steps:
        (N, 1), how many steps of each dream's episode are behind it, for an M with a clock.
        """
        size, h = self.hidden_size, state[0]
        more = restart_inputs(state) if self._restart else []
        if self._clock:
            assert steps is not None
            more.append(steps / self._clock)
        if mask is not None:
            z, h = z * mask[:, : self.latent_size], h * mask[:, self.latent_size :]
        inputs = torch.cat([part.to(self.dtype) for part in (z, actions, *more, h)], dim=1)
        gates = torch.addmm(self._gates_bias, inputs, self._gates).float()
        i, f, o = gates[:, : 3 * size].sigmoid_().chunk(3, dim=1)
        cell = torch.addcmul(f * state[1], i, gates[:, 3 * size :].tanh_())
        return o * torch.tanh(cell), cell

    def draw(self, hidden: Tensor, uniform: Tensor, normal: Tensor, temperature: float) -> Drawn:
        """Sample the next step after hidden states (N, H), with uniform (N, Z) in [0, 1) and normal (N, Z) numbers.

        For each latent dimension a component is drawn from softmax(logits / temperature). z is the component's mean
        plus its scale times sqrt(temperature) times the normal number, as in the authors' code (Ha & Schmidhuber 2018,
        section 4).
        """
        count, latent, mixtures = len(hidden), self.latent_size, self.mixtures
        outputs = torch.addmm(self._heads_bias, hidden.to(self.dtype), self._heads).float()
        logits, means, log_scales = outputs[:, : 3 * mixtures * latent].view(count, 3, mixtures, latent).unbind(1)
        weights = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).exp_()
        threshold = uniform * weights.sum(dim=1)
        mean, log_scale, cumulative = means[:, 0], log_scales[:, 0], weights[:, 0]
        for component in range(1, mixtures):
            beyond = threshold >= cumulative
            mean = torch.where(beyond, means[:, component], mean)
            log_scale = torch.where(beyond, log_scales[:, component], log_scale)
            cumulative = cumulative + weights[:, component]
        z = torch.addcmul(mean, log_scale.exp(), normal, value=math.sqrt(temperature))
        others = iter(outputs[:, 3 * mixtures * latent :].unbind(1))
        has = (self._has_reward, self._has_end, self._has_hit)
        return Drawn(z, *(next(others) if one else None for one in has))
