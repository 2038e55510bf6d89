"""What dreams know of the recorded moments at which they start, beside z and M's state there.

Legend: S recorded moments, D recorded drops.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

from torch import Tensor

_NAMES = {"steps": "start_steps", "health": "start_health", "drops": "drops"}
"""Names of the tensors in an agent's file."""


class Moments(NamedTuple):
    """steps: (S,) int32, how many steps of its episode are behind each moment; None where M has no clock.

    health: (S,) float32, at each moment; None where M has no hit head; drops: (D,) float32, what recorded hits took of
    the health; None also where there were no hits.
    """

    steps: Tensor | None = None
    health: Tensor | None = None
    drops: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by the names in an agent's file."""
        return {_NAMES[name]: value for name, value in self._asdict().items() if value is not None}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], count: int) -> Self:
        """The moments in an agent's file with ``count`` starts; ValueError for tensors that do not fit."""
        found = cls(**{name: tensors.get(stored) for name, stored in _NAMES.items()})
        if found.steps is not None and (found.steps.shape != (count,) or bool((found.steps < 0).any())):
            raise ValueError(f"expected {count} steps of 0 and more as start_steps, got {tuple(found.steps.shape)}")
        for name, values in (("health", found.health), ("drops", found.drops)):
            if values is None:
                continue
            fits = values.shape == (count,) if name == "health" else values.ndim == 1 and len(values) > 0
            if not fits or not bool((values > 0).all() and values.isfinite().all()):
                raise ValueError(f"expected positive numbers as {_NAMES[name]}, as many as there are starts or hits")
        return found
