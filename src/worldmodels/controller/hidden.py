"""C with a hidden layer of tanh units, with which the paper lets V alone act (Ha & Schmidhuber 2018, section 3.3)."""

from torch import Tensor

from worldmodels.controller.layout import Layout
from worldmodels.controller.linear import LinearControllers, check_shape


class HiddenLayerControllers:
    """P controllers with a hidden layer, each with its own parameters, evaluated in two batched products.

    Legend as for :class:`LinearControllers`, and H hidden units. parameters: (P, H * (F + 1) + C * (H + 1)), in the
    order of :class:`~worldmodels.controller.layout.Layout`. Both layers end with tanh, as in the authors' code.
    Parameters of another shape are a :class:`UserError`.
    """

    def __init__(self, parameters: Tensor, layout: Layout) -> None:
        check_shape(parameters, layout)
        before, after = parameters[:, : layout.first], parameters[:, layout.first :]
        self._first = LinearControllers(before, layout.inputs, layout.hidden)
        self._second = LinearControllers(after, layout.hidden, layout.controls)

    def __call__(self, inputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Controls (n, C) in [-1, 1] for inputs (n, F); row i is for controller ``rows[i]``, with ``rows`` (n,).

        ``rows`` None means one row for every controller, in order. A single controller (P = 1) is used for all rows.
        """
        return self._second(self._first(inputs, rows), rows)

    def in_order(self, inputs: Tensor) -> Tensor:
        """Controls (n, C) for inputs (n, F) of which the first n / P are for the first controller, and so on."""
        return self._second.in_order(self._first.in_order(inputs))

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that a call reads, for CUDA graphs."""
        return *self._first.tensors(), *self._second.tensors()


Controllers = LinearControllers | HiddenLayerControllers


def make_controllers(parameters: Tensor, layout: Layout) -> Controllers:
    """Controllers with flat parameters (N, P) in this layout: linear ones if it has no hidden units."""
    if layout.hidden:
        return HiddenLayerControllers(parameters, layout)
    return LinearControllers(parameters, layout.inputs, layout.controls)
