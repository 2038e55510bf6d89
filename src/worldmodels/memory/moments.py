"""What dreams know of the recorded moments at which they start, beside z and M's state there.

Legend: S recorded moments.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

from torch import Tensor

_NAMES = {"steps": "start_steps"}
"""Names of the tensors in an agent's file."""


class Moments(NamedTuple):
    """steps: (S,) int32, how many steps of its episode are behind each moment; None where M has no clock."""

    steps: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by the names in an agent's file."""
        return {_NAMES[name]: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], count: int) -> Self:
        """The moments in an agent's file with ``count`` starts; ValueError for tensors that do not fit."""
        found = cls(**{name: tensors.get(stored) for name, stored in _NAMES.items()})
        if found.steps is not None and (found.steps.shape != (count,) or bool((found.steps < 0).any())):
            raise ValueError(f"expected {count} steps of 0 and more as start_steps, got {tuple(found.steps.shape)}")
        return found
