"""M with dropout: one mask per sequence or dream, for z and h where they enter the LSTM, the same at every step.

(Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".) The mask of h
differs between rows, so that it cannot be made part of the weights of the fused LSTM. Here the products with the inputs
are computed for many steps at once, and only the product with h is left for a loop over steps. For training, the
gradient is written by hand: by itself, autograd would add to the gradient of all weights at every step.

Legend: B batch, T time, Z latent, H hidden, I inputs of the LSTM.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS_AT_ONCE = 100
"""Steps whose products with the inputs are computed at once while following, to limit the memory."""


def dropout_mask(uniform: Tensor, rate: float) -> Tensor:
    """A mask of the shape of ``uniform``, numbers in [0, 1): 0 with probability ``rate``, else 1 / (1 - rate).

    M's masks are (B, Z+H): a number for every part of z, and then for every part of h.
    """
    return (uniform >= rate).to(uniform.dtype) / (1 - rate)


def masked_sequence(lstm: list[Tensor], inputs: Tensor, state: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """h (B, T, H) after every step along inputs (B, T, I), from ``state``, h and c (B, H) each.

    mask: (B, H), by which h is multiplied where it enters a step, but not where it leaves one; it gets no gradient.
    lstm: input weights (4H, I), state weights (4H, H) and biases (4H,), with the gates in torch's order i, f, g, o.
    """
    from_inputs, from_state, bias = lstm
    gates = F.linear(inputs, from_inputs, bias)
    hidden: Tensor = _MaskedSequence.apply(gates, from_state, *state, mask)  # type: ignore[no-untyped-call]
    return hidden


class _MaskedSequence(torch.autograd.Function):
    """h along sums of the gates (B, T, 4H) to which the product with h is still to be added.

    Products have the type of the sums, all else is float32.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, from_state: Tensor, h: Tensor, c: Tensor, mask: Tensor) -> Tensor:
        size, dtype = h.shape[1], gates.dtype
        weights = from_state.detach().to(dtype)
        mask = mask.float()
        h, c = h.float(), c.float()
        seen, activations, cells, hidden = [], [], [c], []
        with torch.autocast(gates.device.type, enabled=False):
            for gate in gates.unbind(1):
                masked = (h * mask).to(dtype)
                sums = torch.addmm(gate, masked, weights.t()).float()
                active = torch.sigmoid(sums)
                torch.tanh(sums[:, 2 * size : 3 * size], out=active[:, 2 * size : 3 * size])
                i, f, g, o = active.chunk(4, dim=-1)
                c = torch.addcmul(i * g, f, c)
                h = o * torch.tanh(c)
                seen.append(masked)
                activations.append(active)
                cells.append(c)
                hidden.append(h)
        ctx.save_for_backward(torch.stack(seen), torch.stack(activations), torch.stack(cells), weights, mask)
        return torch.stack(hidden, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        seen, activations, cells, weights, mask = ctx.saved_tensors
        size, dtype = mask.shape[1], weights.dtype
        with torch.autocast(mask.device.type, enabled=False):
            i, f, g, o = activations.chunk(4, dim=-1)
            squashed = torch.tanh(cells[1:])
            to_cell = o * (1 - squashed.square())
            # What the gradient by c, and that by h, is to be multiplied by for the sums of each gate.
            by_cell = torch.stack([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g.square())], dim=2)
            by_hidden = squashed * o * (1 - o)
            by_sums = torch.empty(*by_cell.shape[:2], 4, size, dtype=dtype, device=mask.device)
            through_h, through_c = torch.zeros_like(mask), torch.zeros_like(mask)
            for step in range(len(seen) - 1, -1, -1):
                by_h = gradients[0][:, step] + through_h
                by_c = torch.addcmul(through_c, by_h, to_cell[step])
                torch.mul(by_c.unsqueeze(1), by_cell[step], out=by_cell[step])
                by_sums[step, :, :3] = by_cell[step]
                by_sums[step, :, 3] = by_h * by_hidden[step]
                through_h = (by_sums[step].flatten(1) @ weights).float() * mask
                through_c = by_c * f[step]
            flat = by_sums.flatten(2)
            by_weights = flat.flatten(0, 1).t() @ seen.flatten(0, 1)
        return flat.transpose(0, 1), by_weights.float(), through_h, through_c, None


@torch.no_grad()
def masked_follow(
    lstm: list[Tensor], inputs: Tensor, lengths: Tensor, state: tuple[Tensor, Tensor], mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The state after the first ``lengths`` (B,) steps along inputs (B, T, I) from ``state``, as :func:`masked_steps`.

    A row of length 0 keeps its state.
    """
    # The longest first, so that the rows that still run are always the first ones.
    order = torch.argsort(lengths, descending=True, stable=True)
    inputs, mask, left = inputs[order], mask[order], lengths[order].tolist()
    h, c = state[0][order], state[1][order]
    start = 0
    for stop in sorted({*left, *range(_STEPS_AT_ONCE, left[0], _STEPS_AT_ONCE)} - {0}):
        running = sum(length > start for length in left)
        now = h[:running], c[:running]
        h[:running], c[:running] = _followed(lstm, inputs[:running, start:stop], now, mask[:running])
        start = stop
    back = torch.argsort(order)
    return h[back], c[back]


def _followed(lstm: list[Tensor], inputs: Tensor, state: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
    """The state after all steps of inputs (B, T, I); the arguments are those of :func:`masked_sequence`."""
    from_inputs, from_state, bias = lstm
    h, c = state
    products = F.linear(inputs, from_inputs, bias)
    # Cast once: autocast would do it at every step.
    across = from_state.to(products.dtype).t()
    for gates in products.unbind(1):
        # In float32, as the cell state, which otherwise would be rounded at every step where products are in bfloat16.
        i, f, g, o = torch.addmm(gates, (h * mask).to(gates.dtype), across).float().chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h, c
