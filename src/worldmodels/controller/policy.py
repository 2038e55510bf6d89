"""C: one linear map from what the agent knows to what it does (Ha & Schmidhuber 2018, section 2.3)."""

import torch
from torch import Tensor

from worldmodels.errors import UserError


class Controllers:
    """N linear controllers with parameters of their own, evaluated in one batched product.

    parameters: (N, C * (F + 1)) with, for each controller, C biases and then the (F, C) weights row by row (the
    original's order); output: tanh(features @ weights + bias), (N, C). Without features a controller is its biases.
    """

    def __init__(self, parameters: Tensor, features: int, controls: int) -> None:
        expected = parameter_count(features, controls)
        if parameters.ndim != 2 or parameters.shape[1] != expected:
            raise UserError(
                f"expected controller parameters of shape (N, {expected}) for {features} features and {controls} "
                f"controls, got {tuple(parameters.shape)}"
            )
        self.bias = parameters[:, :controls].contiguous()
        self.weights = parameters[:, controls:].reshape(len(parameters), features, controls).contiguous()

    def __call__(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Controls (n, C) in [-1, 1] for features (n, F) of the controllers ``rows`` (n,); None means all, in order."""
        bias, weights = self.bias, self.weights
        if len(weights) == 1:  # one controller drives every row
            return torch.tanh(torch.addmm(bias[0], features, weights[0]))
        if rows is not None:
            bias, weights = bias[rows], weights[rows]
        return torch.tanh(torch.bmm(features.unsqueeze(1), weights).squeeze(1) + bias)


def parameter_count(features: int, controls: int) -> int:
    """Parameters of one controller: 867 for CarRacing's 288 features and 3 controls."""
    return controls * (features + 1)
