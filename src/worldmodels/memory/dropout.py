"""M with dropout: one mask per sequence or dream, for z and h where they enter the LSTM, the same at every step.

(Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".) The mask of h
differs between rows, so that it cannot be made part of the weights of the fused LSTM. Here the products with the inputs
are computed for many steps at once, and only the product with h is left for a loop over steps.

Legend: B batch, T time, Z latent, H hidden, I inputs of the LSTM.
"""

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


def masked_steps(
    lstm: list[Tensor], inputs: Tensor, state: tuple[Tensor, Tensor], mask: Tensor
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """h (B, H) after every step along inputs (B, T, I), and the last state, from ``state``.

    mask: (B, H), by which h is multiplied where it enters a step, but not where it leaves one.
    lstm: input weights (4H, I), state weights (4H, H) and biases (4H,), with the gates in torch's order i, f, g, o.
    """
    from_inputs, from_state, bias = lstm
    h, c = state
    hidden = []
    for gates in F.linear(inputs, from_inputs, bias).unbind(1):
        # In float32, as the cell state, which otherwise would be rounded at every step where products are in bfloat16.
        i, f, g, o = torch.addmm(gates, h * mask, from_state.t()).float().chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        hidden.append(h)
    return hidden, (h, c)


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
        _, (h[:running], c[:running]) = masked_steps(lstm, inputs[:running, start:stop], now, mask[:running])
        start = stop
    back = torch.argsort(order)
    return h[back], c[back]
