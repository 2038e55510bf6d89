"""Checks which worlds can be built and stepped on this machine."""

import contextlib
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from worldmodels.cli.doctor.rows import REINSTALL, Row, library
from worldmodels.cli.doctor.trials import all_tried, one_line

if TYPE_CHECKING:
    from worldmodels.tasks.base import Task, World

_TRY_WORLD = """
import sys, numpy
from worldmodels.core.errors import UserError
from worldmodels.execution.environments import make_envs
from worldmodels.tasks import get_task
try:
    env = make_envs(get_task(sys.argv[1]), 1, sys.argv[2])
    first = numpy.array(env.reset(seed=[1])[0])
    after = env.step(numpy.zeros(env.action_space.shape, env.action_space.dtype))[0]
    env.close()
except UserError as error:
    sys.exit(str(error))
assert first.shape == after.shape and first.any(), "the world drew nothing"
print("drew", "x".join(map(str, first.shape[1:])), "and took a step")
"""
_BROKEN = "repair the problems above, or reinstall the package that contains this world"


def world_libraries() -> Iterator[Row]:
    """The libraries that the worlds need, each once."""
    wanted: dict[str, str] = {}
    for task in _tasks():
        if not isinstance(task, Row):
            for world in task.worlds.values():
                modules, extra = needs(world)
                wanted |= {module: install(extra) for module in modules if module not in wanted}
    for module, fix in wanted.items():
        yield library(module, fix)


def worlds() -> Iterator[Row]:
    """Every world on every backend: it is built and stepped once."""
    rows = [row for task in _tasks() for row in ([task] if isinstance(task, Row) else _untried(task))]
    trials = all_tried(_TRY_WORLD, [(row.task, row.backend) for row in rows if row.works])
    with contextlib.closing(trials):
        for row in rows:
            works, found = next(trials) if row.works else (False, row.found)
            yield Row(row.what, works, found, row.fix, False, row.task, row.backend, row.reference)


def _tasks() -> "Iterator[Task | Row]":
    """Every registered task, or a row about it if it cannot be imported."""
    from worldmodels.tasks import get_task, task_names

    for name in task_names():
        try:
            yield get_task(name)
        except Exception as error:  # tasks also come from other packages
            yield Row(name, False, one_line(error), _BROKEN, task=name, reference=True)


def _untried(task: "Task") -> Iterator[Row]:
    """A row for each backend of a task, before its trial; ``works`` says whether all of its libraries are installed."""
    for backend, world in task.worlds.items():
        modules, extra = needs(world)
        missing = [module for module in modules if find_spec(module) is None]
        found = f"missing {' and '.join(missing)}" if missing else ""
        fix, reference = (install(extra) if extra else REINSTALL), backend == task.reference_backend
        if not reference:
            instead = task.reference_backend
            fix += f", or use the slower --collect.backend {instead} --evolution.backend {instead}"
        what = f"{task.name} on {backend}"
        yield Row(what, not missing, found, fix, False, task.name, backend, reference)


def needs(world: "World") -> tuple[tuple[str, ...], str]:
    """The modules that a backend needs, and the extra of this package that installs them."""
    from worldmodels.tasks.base import EnvPoolWorld, ProcessWorld

    if isinstance(world, EnvPoolWorld):
        return ("envpool",), "envpool"
    return (world.requires, world.extra) if isinstance(world, ProcessWorld) else ((), "")


def install(extra: str) -> str:
    """How to install an extra of this package, and which of its libraries are not available on this system."""
    from packaging.requirements import Requirement

    lacking = []
    for text in metadata.requires("worldmodels") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and f'"{extra}"' in str(marker) and not marker.evaluate({"extra": extra}):
            lacking.append(requirement.name)
    note = f" (it brings no {' and '.join(lacking)} for this Python or system)" if lacking else ""
    return f'pip install "worldmodels[{extra}]"{note}'
