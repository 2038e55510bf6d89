"""Weights that were read from a file: checked, and given to the module that they are of."""

from torch import Tensor, nn


def fill(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Give a module on the meta device the tensors whose names begin with ``prefix`` as its weights.

    Raises ValueError if one is missing, unknown, of another shape or not finite.
    """
    given = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    shapes = {name: tuple(value.shape) for name, value in wanted.items()}
    for name in {**shapes, **given}:
        shape = tuple(given[name].shape) if name in given else "nothing"
        if shape != shapes.get(name, "nothing"):
            raise ValueError(f"expected {shapes.get(name, 'nothing')} as {prefix}{name}, got {shape}")
        check_finite(prefix + name, given[name])
    # assign=True, because allocating the module's memory first makes PyTorch import SymPy, which takes half a second.
    module.load_state_dict({name: value.to(wanted[name].dtype) for name, value in given.items()}, assign=True)


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError if values hold NaN or infinity."""
    if not values.isfinite().all():
        raise ValueError(f"{name} holds NaN or infinity; train it again")
