"""All stages of a run in order with a summary, or a single stage."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from worldmodels.analysis.plots import training_curves
from worldmodels.core.device import choose_device
from worldmodels.core.events import say
from worldmodels.core.files import write_json
from worldmodels.core.terminal import console, duration
from worldmodels.evaluation import print_scores
from worldmodels.evolution.finishing import check_finishing
from worldmodels.evolution.mirror import check_symmetry
from worldmodels.evolution.phases import phases_of_all_rounds
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import Executor, make_executor
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.config import Config
from worldmodels.run.names import STAGES, stages_of
from worldmodels.run.pipeline import Pipeline
from worldmodels.run.presets import resolved, task_of
from worldmodels.run.run import Run
from worldmodels.run.takeover import Source
from worldmodels.vision.base import check_vision


@contextlib.contextmanager
def opened(
    config: Config, directory: Path, executor: str, device: torch.device, create: bool
) -> Iterator[tuple[Run, Executor]]:
    """Open the run, with the task's defaults filled in, and the executor for all of its work.

    create: whether a run that does not exist is created; otherwise it is a :class:`UserError`.
    """
    task = task_of(config)
    config = resolved(config, task)
    # Wrong settings are reported now, and not by the stage that uses them, perhaps an hour later.
    check_finishing(phases_of_all_rounds(config.evolution), task)
    check_symmetry(config.evolution, task)
    check_vision(config.vision)
    made_with = Artifacts(directory, config).provenance(device)
    with (
        contextlib.closing(make_executor(executor, device.type)) as workers,
        Run.open(directory, config, made_with, create) as run,
    ):
        yield run, workers


def train_run(
    config: Config, directory: Path, device: str = "auto", executor: str = "auto", from_run: Path | None = None
) -> dict[str, Any]:
    """Run every stage of every round; write summary.json, curves.png and agent/, and return the summary.

    from_run: another run, whose finished stages are taken over where they have the same inputs.
    """
    torch_device = choose_device(device)
    source = Source.open(from_run, config.task, directory) if from_run is not None else None
    with opened(config, directory, executor, torch_device, create=True) as (run, workers):
        _check_backends(run.config)
        rows, made_with = [], list[dict[str, Any]]()
        for number in range(1, config.rounds + 1):
            pipeline = Pipeline(run.artifacts(number), torch_device, workers, source)
            for name in stages_of(number, config.rounds):
                result = getattr(pipeline, name)()
                label = name if config.rounds == 1 else f"{name} {number}"
                rows.append({"name": label, "seconds": result["seconds"], "metrics": result["metrics"]})
                made_with += [record for record in result.get("made_with", []) if record not in made_with]
        agent = pipeline.artifacts.agent(torch_device)
        controller = pipeline.artifacts.stage("controller")
        agent.info |= {"round": config.rounds, "made_with": controller.made_with()}
        agent.save(directory / "agent")
        summary = {
            "task": config.task,
            "run": pipeline.artifacts.run_name,
            "preset": config.preset,
            "seed": config.seed,
            "rounds": config.rounds,
            "made_with": made_with,
            "stages": rows,
            "seconds_total": sum(row["seconds"] for row in rows),
            "evaluation": pipeline.artifacts.evaluation(),
        }
        write_json(directory / "summary.json", summary)
        training_curves(directory, directory / "curves.png")
    return summary


def _check_backends(config: Config) -> None:
    """Build an environment on every backend, so that a missing package is reported now and not by a later stage."""
    task = task_of(config)
    for backend in sorted({config.collect.backend, config.evolution.backend, task.reference_backend}):
        make_envs(task, 1, backend).close()


def run_stage(name: str, config: Config, directory: Path, device: str = "auto", executor: str = "auto") -> None:
    """Run one stage of the run's last round; :class:`UserError` if a stage that it needs is not finished.

    Only ``collect``, the first stage, begins a new run.
    """
    torch_device = choose_device(device)
    with opened(config, directory, executor, torch_device, create=name == STAGES[0]) as (run, workers):
        result = getattr(Pipeline(run.artifacts(config.rounds), torch_device, workers), name)()
    say(f"{name}: {duration(result['seconds'])}; {_metrics_text(result['metrics'])}")


def _metrics_text(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in metrics.items())


def print_summary(summary: dict[str, Any], directory: Path) -> None:
    """Print what :func:`train_run` returned, as tables."""
    from rich.table import Table

    table = Table(title=f"{summary['task']}, preset {summary['preset']}", title_justify="left")
    table.add_column("stage")
    table.add_column("time", justify="right")
    table.add_column("result")
    for row in summary["stages"]:
        table.add_row(row["name"], duration(row["seconds"]), _metrics_text(row["metrics"]))
    table.add_row("total", duration(summary["seconds_total"]), "")
    console().print(table)
    print_scores({"agent": summary["evaluation"]})
    say(f"agent: {directory / 'agent'}; curves: {directory / 'curves.png'}; summary: {directory / 'summary.json'}")
