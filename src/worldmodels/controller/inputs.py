"""What C sees: the one place that says which of z, h and c a controller is given, and in which order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worldmodels.core.errors import UserError


class PolicyInputs:
    """The inputs of a controller: some of z (N, Z), h (N, H) and c (N, H), side by side as (N, F).

    names: which, in order; none for a controller that sees nothing. Another name is a :class:`UserError`.
    """

    def __init__(self, names: Sequence[str], latent_size: int, hidden_size: int) -> None:
        sizes = {"z": latent_size, "h": hidden_size, "c": hidden_size}
        if any(name not in sizes for name in names):
            raise UserError(f"expected some of z, h and c as inputs of a controller, got {list(names)}")
        self.names = tuple(names)
        self._sizes = [sizes[name] for name in self.names]

    @property
    def size(self) -> int:
        """F, the numbers that a controller sees."""
        return sum(self._sizes)

    def part(self, name: str) -> slice:
        """Where z, h or c stands among the inputs; an empty slice if it does not."""
        if name not in self.names:
            return slice(0)
        index = self.names.index(name)
        before = sum(self._sizes[:index])
        return slice(before, before + self._sizes[index])

    def __call__(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """The inputs (N, F)."""
        known = {"z": z, "h": h, "c": c}
        return torch.cat([known[name] for name in self.names], dim=-1) if self.names else z[:, :0]
