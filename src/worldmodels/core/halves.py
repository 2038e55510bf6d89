"""The loss of a batch and its gradient, computed in parts at the same time, each by threads of its own.

With two threads, PyTorch divides every operation between them, and after each the first waits for the second: as soon
as anything else runs on the machine, most of the time is spent waiting. Parts meet only once per batch.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from worldmodels.core.device import torch_threads
from worldmodels.core.fit import Loss

PARTS = 2
"""Parts of a batch. The same number on every machine, because sums in another order have other last digits."""


class Halves:
    """Computes sums of losses, each with its gradient by ``weights``, at the same time."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = list(weights)
        self._others = ThreadPoolExecutor(PARTS - 1, "halves")

    def sum(self, losses: Sequence[Callable[[], Loss]]) -> Loss:
        """The sum of at most :data:`PARTS` losses, whose gradient is known already, and the sums of their parts.

        They must not depend on each other, and must have parts of the same names.
        """
        if not losses or len(losses) > PARTS:
            raise ValueError(f"expected 1 to {PARTS} losses, got {len(losses)}")
        threads = max(1, torch.get_num_threads() // PARTS)
        with torch_threads(threads):
            later = [self._others.submit(self._computed, loss, threads) for loss in losses[1:]]
            try:
                results = [self._computed(losses[0], threads)]
            finally:
                # Also after an error: nothing may go on computing with weights that are about to change.
                done = [future.exception() for future in later]
        for error in done:
            if error is not None:
                raise error
        results += [future.result() for future in later]
        total = torch.stack([total for total, _, _ in results]).sum()
        parts = {name: torch.stack([named[name] for _, named, _ in results]).sum() for name in results[0][1]}
        gradients = [_added(each) for each in zip(*(gradients for _, _, gradients in results), strict=True)]
        known: Tensor = _Known.apply(total, gradients, *self._weights)  # type: ignore[no-untyped-call]
        return known, parts

    def _computed(self, loss: Callable[[], Loss], threads: int) -> tuple[Tensor, dict[str, Tensor], Sequence[Any]]:
        """The total, its parts, and the gradient by each weight, None for a weight that it does not depend on."""
        with torch_threads(threads), torch.enable_grad():
            total, parts = loss()
            gradients = torch.autograd.grad(total, self._weights, allow_unused=True)
        return total.detach(), {name: part.detach() for name, part in parts.items()}, gradients


def _added(gradients: Sequence[Tensor | None]) -> Tensor | None:
    known = [gradient for gradient in gradients if gradient is not None]
    return torch.stack(known).sum(0) if known else None


class _Known(torch.autograd.Function):
    """A number whose gradient by some weights is known already."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: Sequence[Tensor | None], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Any:
        return None, None, *(None if one is None else outer * one for one in ctx.gradients)
