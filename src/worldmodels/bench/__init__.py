"""Speed, as ratios to a baseline and to an upper bound that are measured in the same run."""

from collections.abc import Callable, Mapping
from typing import Any

from worldmodels.core.errors import UserError

BENCHMARKS = ("acting", "evolution", "vision", "memory", "dream", "world")


def run_bench(
    what: str,
    task_name: str,
    repeats: int,
    steps: int | None = None,
    save: Callable[[dict[str, Any]], None] | None = None,
    env: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure ``what``, one of ``BENCHMARKS``, print a table, and return the figures as JSON-able values.

    Every measurement is repeated ``repeats`` times, in turns with the others; steps: of every environment in one
    measurement of acting, evolution or the world (None: as many as take some seconds); save: called with the figures
    before the table is printed, because printing fails if nobody reads the output any more; env: options of the
    environment of a task gym:ID. Raises :class:`UserError`
    for an unknown name or task and for fewer than one repeat or step.
    """
    if what not in BENCHMARKS:
        raise UserError(f"unknown benchmark {what!r}; choose from {', '.join(BENCHMARKS)}")
    if repeats < 1:
        raise UserError(f"expected at least 1 repeat, got {repeats}")
    if steps is not None and steps < 1:
        raise UserError(f"expected at least 1 step, got {steps}")
    from worldmodels.bench import acting, dream, evolution, memory, vision, world
    from worldmodels.tasks import get_task

    task = get_task(task_name, env)
    if what in ("acting", "evolution", "world"):
        bench = {"acting": acting.bench, "evolution": evolution.bench, "world": world.bench}[what]
        return bench(task, repeats, steps, save)
    return {"vision": vision.bench, "memory": memory.bench, "dream": dream.bench}[what](task, repeats, save=save)
