"""Worlds, one file each. A new world is a new file here and a line in ``_REGISTRY``."""

import difflib
from importlib import import_module

from worldmodels.errors import UserError
from worldmodels.tasks.base import Board, ExplorationPolicy, Task

__all__ = ["Board", "ExplorationPolicy", "Task", "get_task", "task_names"]

_REGISTRY = {
    "car-racing": "worldmodels.tasks.car_racing:CarRacing",
    "bin-packing": "worldmodels.tasks.bin_packing:BinPacking",
    "bin-packing-published": "worldmodels.tasks.bin_packing:Published",
    "bin-packing-9-linear-waste": "worldmodels.tasks.bin_packing:SmallLinearWaste",
    "bin-packing-9-perfect-packing": "worldmodels.tasks.bin_packing:SmallPerfectPacking",
    "bin-packing-9-bounded-waste": "worldmodels.tasks.bin_packing:SmallBoundedWaste",
    "take-cover": "worldmodels.tasks.take_cover:TakeCover",
}


def task_names() -> list[str]:
    """The names that :func:`get_task` knows."""
    return sorted(_REGISTRY)


def get_task(name: str) -> Task:
    """The task called ``name``; an unknown name is a :class:`UserError` that lists the known ones."""
    if name not in _REGISTRY:
        close = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known tasks: {', '.join(task_names())}"
        raise UserError(f"unknown task {name!r}; {hint}")
    module, attribute = _REGISTRY[name].split(":")
    task: Task = getattr(import_module(module), attribute)()
    return task
