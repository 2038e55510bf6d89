"""C: one linear map from what the agent knows to what it does (Ha & Schmidhuber 2018, section 2.3)."""

import torch
from torch import Tensor

from worldmodels.core.errors import UserError

_ALL_AT_ONCE = 192
"""Controls of all controllers together up to which they are computed for every row, instead of each row's alone."""


class LinearControllers:
    """P linear controllers with parameters of their own, evaluated in one batched product.

    parameters: (P, C * (F + 1)) with, for each controller, C biases and then the (F, C) weights row by row (the
    original's order); output: tanh(inputs @ weights + bias). Without inputs (F = 0) a controller is its biases.
    """

    def __init__(self, parameters: Tensor, inputs: int, controls: int) -> None:
        expected = parameter_count(inputs, controls)
        if parameters.ndim != 2 or parameters.shape[1] != expected:
            raise UserError(
                f"expected controller parameters of shape (N, {expected}) for {inputs} inputs and {controls} "
                f"controls, got {tuple(parameters.shape)}"
            )
        self._count, self._controls = len(parameters), controls
        self.bias = parameters[:, :controls].contiguous()
        self.weights = parameters[:, controls:].reshape(len(parameters), inputs, controls).contiguous()
        self._side_by_side = self.weights.permute(1, 0, 2).reshape(inputs, len(parameters) * controls)

    def __call__(self, inputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Controls (n, C) in [-1, 1] for inputs (n, F), a row for each of the controllers ``rows`` (n,).

        None means all controllers, in order; a single controller serves every row.
        """
        bias, weights = self.bias, self.weights
        if self._count == 1:
            return torch.tanh(torch.addmm(bias[0], inputs, weights[0]))
        if rows is not None:
            bias, weights = bias[rows], weights[rows]
        return torch.tanh(torch.bmm(inputs.unsqueeze(1), weights).squeeze(1) + bias)

    def shared(self, inputs: Tensor, owners: Tensor) -> Tensor:
        """The same where many rows share a controller: that of row i is ``owners[i]``, (n,).

        While controllers are few, one product of every row with every controller is cheaper than gathering weights.
        """
        if self._count * self._controls <= _ALL_AT_ONCE:
            every = (inputs @ self._side_by_side).view(len(inputs), self._count, self._controls)
            own = every[torch.arange(len(inputs), device=inputs.device), owners]
        else:
            own = torch.bmm(inputs.unsqueeze(1), self.weights[owners]).squeeze(1)
        return torch.tanh(own + self.bias[owners])

    def in_order(self, inputs: Tensor) -> Tensor:
        """The same where the first n / P rows belong to the first controller, and so on: a small product for each."""
        count = len(inputs) // self._count
        own = torch.bmm(inputs.view(self._count, count, inputs.shape[1]), self.weights)
        return torch.tanh(own + self.bias.unsqueeze(1)).view(len(inputs), self._controls)

    def tensors(self) -> tuple[Tensor, ...]:
        """What a call reads, for work that is recorded once and replayed."""
        return self.bias, self.weights, self._side_by_side


def parameter_count(inputs: int, controls: int) -> int:
    """Parameters of one controller: 867 for CarRacing's 288 inputs and 3 controls."""
    return controls * (inputs + 1)
