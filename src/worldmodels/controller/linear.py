"""C: a linear map from the agent's latent and hidden state to its controls (Ha & Schmidhuber 2018, section 2.3)."""

import torch
from torch import Tensor

from worldmodels.controller.layout import Layout
from worldmodels.core.errors import UserError

_ALL_AT_ONCE = 192
"""Largest P * C for which :meth:`LinearControllers.shared` computes the controls of all controllers for every row."""


class LinearControllers:
    """P linear controllers, each with its own parameters, evaluated in one batched product.

    Legend: P controllers, F inputs, C controls, n rows. parameters: (P, C * (F + 1)), for each controller C biases and
    then the (F, C) weights row by row (the order of the authors' code). The output is tanh(inputs @ weights + bias);
    without inputs (F = 0), it is tanh(bias). Parameters of another shape are a :class:`UserError`.
    """

    def __init__(self, parameters: Tensor, inputs: int, controls: int) -> None:
        check_shape(parameters, Layout(inputs, controls))
        self._count, self._controls = len(parameters), controls
        self.bias = parameters[:, :controls].contiguous()
        self.weights = parameters[:, controls:].reshape(len(parameters), inputs, controls).contiguous()
        few = self.weights if self._all_at_once else self.weights[:0]
        self._side_by_side = few.permute(1, 0, 2).reshape(inputs, len(few) * controls)

    def __call__(self, inputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Controls (n, C) in [-1, 1] for inputs (n, F); row i is for controller ``rows[i]``, with ``rows`` (n,).

        ``rows`` None means one row for every controller, in order. A single controller (P = 1) is used for all rows.
        """
        bias, weights = self.bias, self.weights
        if self._count == 1:
            return torch.tanh(torch.addmm(bias[0], inputs, weights[0]))
        if rows is not None:
            bias, weights = bias[rows], weights[rows]
        return torch.tanh(torch.bmm(inputs.unsqueeze(1), weights).squeeze(1) + bias)

    def shared(self, inputs: Tensor, owners: Tensor) -> Tensor:
        """Controls (n, C) for inputs (n, F) of which many share a controller; row i is for controller ``owners[i]``.

        For few controllers, a single product of all rows with all controllers is cheaper than gathering weights.
        """
        if self._all_at_once:
            every = (inputs @ self._side_by_side).view(len(inputs), self._count, self._controls)
            own = every[torch.arange(len(inputs), device=inputs.device), owners]
        else:
            own = torch.bmm(inputs.unsqueeze(1), self.weights[owners]).squeeze(1)
        return torch.tanh(own + self.bias[owners])

    @property
    def _all_at_once(self) -> bool:
        return self._count * self._controls <= _ALL_AT_ONCE

    def in_order(self, inputs: Tensor) -> Tensor:
        """Controls (n, C) for inputs (n, F) of which the first n / P are for the first controller, and so on."""
        count = len(inputs) // self._count
        own = torch.bmm(inputs.view(self._count, count, inputs.shape[1]), self.weights)
        return torch.tanh(own + self.bias.unsqueeze(1)).view(len(inputs), self._controls)

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a call reads, for CUDA graphs."""
        return self.bias, self.weights, self._side_by_side


def check_shape(parameters: Tensor, layout: Layout) -> None:
    """Raise :class:`UserError` if the parameters are not (N, P) for controllers of this layout."""
    if parameters.ndim != 2 or parameters.shape[1] != layout.count:
        hidden = f", {layout.hidden} hidden units" if layout.hidden else ""
        raise UserError(
            f"expected controller parameters of shape (N, {layout.count}) for {layout.inputs} inputs{hidden} and "
            f"{layout.controls} controls, got {tuple(parameters.shape)}"
        )


def parameter_count(inputs: int, controls: int) -> int:
    """Parameters of one linear controller: 867 for CarRacing's 288 inputs and 3 controls."""
    return Layout(inputs, controls).count
