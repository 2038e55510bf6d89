"""The inputs of C: which of z, h and c a controller is given, and in which order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.core.errors import UserError


class PolicyInputs:
    """The inputs of a controller: any of z (N, Z), h (N, H) and c (N, H), concatenated to (N, F).

    names: which of them, in order; empty for a controller without inputs (F = 0). Other names are a :class:`UserError`.
    """

    def __init__(self, names: Sequence[str], latent_size: int, hidden_size: int) -> None:
        sizes = {"z": latent_size, "h": hidden_size, "c": hidden_size}
        if any(name not in sizes for name in names):
            raise UserError(f"expected some of z, h and c as inputs of a controller, got {list(names)}")
        self.names = tuple(names)
        self._sizes = [sizes[name] for name in self.names]

    @property
    def size(self) -> int:
        """F, the number of inputs."""
        return sum(self._sizes)

    def part(self, name: str) -> slice:
        """The slice of the inputs that holds z, h or c; an empty slice if it is not among the inputs."""
        if name not in self.names:
            return slice(0)
        index = self.names.index(name)
        before = sum(self._sizes[:index])
        return slice(before, before + self._sizes[index])

    def __call__(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """The inputs (N, F) from z (N, Z), h (N, H) and c (N, H)."""
        values = {"z": z, "h": h, "c": c}
        return torch.cat([values[name] for name in self.names], dim=-1) if self.names else z[:, :0]
