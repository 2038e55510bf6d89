"""A training of M that is stopped on its way, which several tests of what it goes on to share."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from worldmodels.core import interrupt
from worldmodels.core.halves import PARTS
from worldmodels.memory import train


def stop_in_the_fifth_step(monkeypatch: pytest.MonkeyPatch, training: Callable[[], object]) -> None:
    """Run a training of M that is told to stop, as by SIGTERM, in its fifth step."""
    loss, calls = train.memory_loss, iter(range(100))

    def stopped(*arguments: Any) -> Any:
        if next(calls) == 4 * PARTS:
            interrupt._received = 15
        return loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(interrupt, "_received", None)
        patch.setattr(train, "memory_loss", stopped)
        with pytest.raises(interrupt.Interrupted):
            training()


def assert_same_bits(found: nn.Module, wanted: nn.Module) -> None:
    """Both modules have the same weights, to the last bit."""
    weights = found.state_dict()
    for name, value in wanted.state_dict().items():
        assert weights[name].equal(value), name
