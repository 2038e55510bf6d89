"""Worlds, a folder each: the task, its environment, its explorers and its presets. A new one is a line in ``TASKS``."""

from worldmodels.core.registry import Registry
from worldmodels.tasks.base import Task

__all__ = ["TASKS", "Task", "get_task", "task_names"]

TASKS: Registry[type[Task]] = Registry(
    "task",
    {
        "car-racing": "worldmodels.tasks.car_racing.task:CarRacing",
        "take-cover": "worldmodels.tasks.take_cover.task:TakeCover",
        "bin-packing": "worldmodels.tasks.bin_packing.task:BinPacking",
        "bin-packing-published": "worldmodels.tasks.bin_packing.task:Published",
        "bin-packing-9-linear-waste": "worldmodels.tasks.bin_packing.task:SmallLinearWaste",
        "bin-packing-9-perfect-packing": "worldmodels.tasks.bin_packing.task:SmallPerfectPacking",
        "bin-packing-9-bounded-waste": "worldmodels.tasks.bin_packing.task:SmallBoundedWaste",
    },
    "worldmodels.tasks",
)
"""Every world by name; other packages add theirs by the entry point group "worldmodels.tasks"."""


def task_names() -> list[str]:
    """The names that :func:`get_task` knows."""
    return TASKS.names()


def get_task(name: str) -> Task:
    """The task called ``name``; an unknown name is a :class:`UserError` that lists the known ones."""
    task = TASKS.get(name)()
    task.name = name  # by which an agent's file finds it again
    return task
