"""How the flat parameters of a controller are divided into layers."""

import itertools
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from worldmodels.core.errors import UserError


@dataclass(frozen=True)
class Layout:
    """The flat parameters of a controller: for each layer its biases, and then its weights input by input.

    inputs: F; controls: C; hidden: number of tanh units H between the two, 0 for a linear controller, which has a
    single layer. This is the order of the authors' code. A negative number is a :class:`UserError`.
    """

    inputs: int
    controls: int
    hidden: int = 0

    def __post_init__(self) -> None:
        if self.hidden < 0:
            raise UserError(f"expected 0 or more hidden units of a controller, got {self.hidden}")

    @property
    def first_outputs(self) -> int:
        """The number of outputs of the layer that is given the inputs: H, or C without hidden units."""
        return self.hidden or self.controls

    @property
    def first(self) -> int:
        """The number of parameters of the layer that is given the inputs; they come before those of the other."""
        return self.first_outputs * (self.inputs + 1)

    @property
    def count(self) -> int:
        """P, the number of parameters: 867 for CarRacing's 288 inputs, 1443 for z alone with 40 hidden units."""
        return self.first + (self.controls * (self.hidden + 1) if self.hidden else 0)

    def acts(self, parameters: np.ndarray | Tensor) -> bool:
        """Whether the controls of parameters (P,) can be other than zero, because the last layer has been evolved."""
        return bool(parameters[self.first if self.hidden else 0 :].any())

    def layers(self, parameters: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each layer of one controller with parameters (P,): biases (outputs,) and weights (inputs, outputs)."""
        sizes = [self.inputs, self.hidden, self.controls] if self.hidden else [self.inputs, self.controls]
        layers = []
        for before, after in itertools.pairwise(sizes):
            own, parameters = parameters[: after * (before + 1)], parameters[after * (before + 1) :]
            layers.append((own[:after], own[after:].reshape(before, after)))
        return layers
