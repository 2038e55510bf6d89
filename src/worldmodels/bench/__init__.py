"""Speed as ratios against a baseline and a bound in the same run."""

from typing import Any

from worldmodels.core.errors import UserError

BENCHMARKS = ("acting", "vision", "dream", "bin-packing")


def run_bench(what: str, task_name: str, repeats: int, steps: int | None = None) -> dict[str, Any]:
    """Measure ``what``, one of ``BENCHMARKS``, print a table, and return the figures as JSON-able values.

    Every measurement is repeated ``repeats`` times, in turns with the others; ``steps``: lockstep steps of one
    measurement of acting (None: 250). An unknown name or task, or fewer than one repeat, is a :class:`UserError`.
    """
    if what not in BENCHMARKS:
        raise UserError(f"unknown benchmark {what!r}; choose from {', '.join(BENCHMARKS)}")
    if repeats < 1:
        raise UserError(f"expected at least 1 repeat, got {repeats}")
    from worldmodels.bench import acting, bin_packing, dream, vision
    from worldmodels.tasks import get_task
    from worldmodels.tasks.bin_packing.task import BinPacking

    if what == "bin-packing":
        task = get_task(task_name if task_name.startswith(what) else what)
        assert isinstance(task, BinPacking)
        return bin_packing.bench(task, repeats)
    task = get_task(task_name)
    if what == "acting":
        return acting.bench(task, repeats, steps)
    return vision.bench(task, repeats) if what == "vision" else dream.bench(task, repeats)
