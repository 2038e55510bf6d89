"""The tasks, one folder each: the task itself, its environment, its exploration policies and its presets.

A new task needs a line in ``TASKS``. Any Gymnasium environment is a task, too, without a line (``gym/``).
"""

from collections.abc import Callable, Mapping
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.registry import Registry
from worldmodels.tasks.base import Task
from worldmodels.tasks.gym_names import PREFIX, is_gym, known_to_gymnasium, make_id, same_world

__all__ = ["TASKS", "Task", "get_task", "is_task", "same_task", "task_names"]

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
FAMILIES: Registry[Callable[[str, Mapping[str, Any], Mapping[str, Any] | None], Task]] = Registry(
    "family of tasks", {"gym": "worldmodels.tasks.gym.task:gym_task"}, "worldmodels.task_families"
)
"""Functions that make tasks whose names begin alike, from a name, options and known facts. They are found by name,
because their modules import this one."""


def task_names() -> list[str]:
    """The names that :func:`get_task` accepts."""
    return TASKS.names()


def is_task(name: str) -> bool:
    """Whether ``name`` is one of :func:`task_names`, or that of a Gymnasium environment, "gym:ID"."""
    return is_gym(name) or name in task_names()


def same_task(name: str, known: str) -> bool:
    """Whether ``name``, as somebody may write it, is the task called ``known``."""
    return name == known or (is_gym(name) and is_gym(known) and same_world(name, make_id(known)))


def get_task(name: str, options: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None) -> Task:
    """The task called ``name``; "gym:ID" is any Gymnasium environment that shows a picture.

    options: of ``gymnasium.make`` for these environments, for other tasks those that the task has; facts:
    :attr:`Task.facts` of the same task, which a run or an agent has saved (without them, such an environment is tried,
    which takes seconds). Raises :class:`UserError`, with a hint at the known names, for an unknown one.
    """
    if facts is not None and not isinstance(facts, Mapping):
        raise UserError(f"expected what is known of {name} as a table, got {facts!r:.60}")
    chosen = (facts or {}).get("options", {}) if options is None else options
    if not isinstance(chosen, Mapping):
        raise UserError(f"expected the options of {name} as a table, got {chosen!r:.60}")
    if is_gym(name):
        return FAMILIES.get("gym")(name, chosen, facts)
    if name not in task_names() and known_to_gymnasium(name):
        raise UserError(f"unknown task {name!r}; did you mean {PREFIX + name!r}?")
    task = TASKS.get(name).with_options(name, chosen)
    task.name = name  # an agent's file stores this name to find the task again
    return task
