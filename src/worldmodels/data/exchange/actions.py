"""Recorded actions of other programs, as the numbers that encode them for M."""

import numpy as np
from gymnasium import spaces

from worldmodels.tasks import Task

_TOLERANCE = 1e-2
"""How far outside its bounds a number may lie: half precision rounds."""


def memory_numbers(task: Task, actions: np.ndarray) -> np.ndarray:
    """Actions (T, ...) as numbers (T, A) float32. ValueError for actions that the task does not have.

    Whole numbers are the actions of a world that numbers them; other numbers are those of a continuous action, those
    that M sees, or, for a task with a single control, controls from -1 to 1.
    """
    steps, space = len(actions), task.action_space
    flat = actions.reshape(steps, -1)
    with np.errstate(over="ignore"):
        if not np.isfinite(flat.astype(np.float32)).all():
            raise ValueError("the actions hold NaN, infinity or numbers that are too large")
    if isinstance(space, spaces.Discrete):
        if flat.shape[1] == 1 and actions.dtype.kind in "bui":
            return _numbered(task, flat[:, 0].astype(np.int64), space)
        if flat.shape[1] == task.control_size == task.action_size == 1:
            return _of_controls(task, _within(flat, -1.0, 1.0))
        if flat.shape[1] == task.action_size:
            return flat.astype(np.float32)
        raise ValueError(
            f"expected actions as whole numbers below {space.n} or as {task.action_size} numbers each, got shape "
            f"{actions.shape} {actions.dtype}"
        )
    if flat.shape[1] != int(np.prod(space.shape)):
        raise ValueError(f"expected actions of shape {(steps, *space.shape)}, got {actions.shape}")
    if not isinstance(space, spaces.Box) and (flat != flat.round()).any():
        raise ValueError("expected actions as whole numbers, got fractions")
    inside = _within(flat, *_bounds(space)).astype(np.float32 if isinstance(space, spaces.Box) else np.int64)
    return task.memory_action(inside.reshape(steps, *space.shape))


def _bounds(space: spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of every number of an action."""
    if isinstance(space, spaces.Box):
        return space.low.reshape(-1), space.high.reshape(-1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.reshape(-1), (space.start + space.nvec - 1).reshape(-1)
    count = int(np.prod(space.shape))
    return np.zeros(count), np.ones(count)


def _numbered(task: Task, actions: np.ndarray, space: spaces.Discrete) -> np.ndarray:
    first = int(space.start)
    if actions.min() < first or actions.max() >= first + int(space.n):
        raise ValueError(
            f"expected actions from {first} to {first + int(space.n) - 1}, got {actions.min()} to {actions.max()}"
        )
    return task.memory_action(actions)


def _of_controls(task: Task, controls: np.ndarray) -> np.ndarray:
    import torch

    return task.dream_action(torch.from_numpy(controls.astype(np.float32))).numpy()


def _within(values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    if (values < low - _TOLERANCE).any() or (values > high + _TOLERANCE).any():
        raise ValueError(
            f"expected actions from {np.min(low):g} to {np.max(high):g}, got {values.min():g} to {values.max():g}"
        )
    return np.asarray(np.clip(values, low, high))
