"""The tasks, one folder each: the task itself, its environment, its exploration policies and its presets.

A new task needs a line in ``TASKS``.
"""

from worldmodels.core.registry import Registry
from worldmodels.tasks.base import Task

__all__ = ["TASKS", "Task", "get_task", "task_names"]

TASKS: Registry[type[Task]] = Registry(
    "task",
    {
        "car-racing": "worldmodels.tasks.car_racing.task:CarRacing",
        "car-racing-published": "worldmodels.tasks.car_racing.published:PublishedCarRacing",
        "take-cover": "worldmodels.tasks.take_cover.task:TakeCover",
        "take-cover-published": "worldmodels.tasks.take_cover.published:PublishedTakeCover",
        "bin-packing": "worldmodels.tasks.bin_packing.task:BinPacking",
        "bin-packing-published": "worldmodels.tasks.bin_packing.task:Published",
        "bin-packing-9-linear-waste": "worldmodels.tasks.bin_packing.task:SmallLinearWaste",
        "bin-packing-9-perfect-packing": "worldmodels.tasks.bin_packing.task:SmallPerfectPacking",
        "bin-packing-9-bounded-waste": "worldmodels.tasks.bin_packing.task:SmallBoundedWaste",
    },
    "worldmodels.tasks",
)
"""Every task by name; other packages add theirs through the entry point group "worldmodels.tasks"."""


def task_names() -> list[str]:
    """The names that :func:`get_task` accepts."""
    return TASKS.names()


def get_task(name: str) -> Task:
    """The task called ``name``. Raises :class:`UserError`, with a hint at the known names, for an unknown one."""
    task = TASKS.get(name)()
    task.name = name  # an agent's file stores this name to find the task again
    return task
