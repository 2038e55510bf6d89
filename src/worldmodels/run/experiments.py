"""Whole experiments: all stages of a run in order with a summary, a single stage, ablations, and the demo."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from worldmodels.agent import load_agent
from worldmodels.analysis.dream_summary import dreaming_text, share_of_way
from worldmodels.analysis.plots import bar_of_scores, training_curves
from worldmodels.core.device import choose_device
from worldmodels.core.events import say
from worldmodels.core.files import write_json
from worldmodels.core.seeds import episode_seeds
from worldmodels.core.terminal import console, duration
from worldmodels.evaluation import agent_policy, evaluate, print_scores, report
from worldmodels.evolution.phases import phases_in, phases_of
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import Executor, make_executor
from worldmodels.run.artifacts import STAGES, Artifacts
from worldmodels.run.config import Config
from worldmodels.run.pipeline import Pipeline
from worldmodels.run.presets import preset, resolved
from worldmodels.run.run import Run
from worldmodels.tasks import get_task
from worldmodels.vision.base import VISIONS


@contextlib.contextmanager
def _opened(
    config: Config, directory: Path, executor: str, device: torch.device, create: bool
) -> Iterator[tuple[Run, Executor]]:
    """Open the run, with the task's defaults filled in, and the executor for all of its work.

    create: whether a run that does not exist is created; otherwise it is a :class:`UserError`.
    """
    task = get_task(config.task)
    config = resolved(config, task)
    # Wrong settings are reported now, and not by the stage that uses them, perhaps an hour later.
    phases_of(config.evolution)
    VISIONS.target(config.vision.model)
    made_with = Artifacts(directory, config).provenance(device)
    with contextlib.closing(make_executor(executor)) as workers, Run.open(directory, config, made_with, create) as run:
        yield run, workers


def train_run(config: Config, directory: Path, device: str = "auto", executor: str = "local") -> dict[str, Any]:
    """Run every stage of every round; write summary.json, curves.png and agent/, print a table, return the summary."""
    torch_device = choose_device(device)
    with _opened(config, directory, executor, torch_device, create=True) as (run, workers):
        _check_backends(run.config)
        rows, made_with = [], list[dict[str, Any]]()
        for number in range(1, config.rounds + 1):
            pipeline = Pipeline(run.artifacts(number), torch_device, workers)
            for name in STAGES:
                if name == "evaluate" and number < config.rounds:
                    continue
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
    _print_summary(summary, directory)
    return summary


def _check_backends(config: Config) -> None:
    """Build an environment on every backend, so that a missing package is reported now and not by a later stage."""
    task = get_task(config.task)
    for backend in sorted({config.collect.backend, config.evolution.backend, task.reference_backend}):
        make_envs(task, 1, backend).close()


def run_stage(name: str, config: Config, directory: Path, device: str = "auto", executor: str = "local") -> None:
    """Run one stage of the run's last round; :class:`UserError` if a stage that it needs is not finished.

    Only ``collect``, the first stage, begins a new run.
    """
    torch_device = choose_device(device)
    with _opened(config, directory, executor, torch_device, create=name == STAGES[0]) as (run, workers):
        result = getattr(Pipeline(run.artifacts(config.rounds), torch_device, workers), name)()
    say(f"{name}: {duration(result['seconds'])}; {_metrics_text(result['metrics'])}")


def ablate_run(config: Config, directory: Path, device: str = "auto", executor: str = "local") -> None:
    """Evolve and score the ablations that apply: C on z alone, an untrained M, the action mask alone, dreams alone.

    Writes ablation.json and ablation.png, and prints a table of these scores beside those of the run's agent and of the
    random policy.
    """
    torch_device = choose_device(device)
    with _opened(config, directory, executor, torch_device, create=False) as (run, workers):
        pipeline = Pipeline(run.artifacts(config.rounds), torch_device, workers)
        rows: dict[str, Any] = {"full": _evaluation(pipeline)}
        for variant in _variants(run.config):
            artifacts = dataclasses.replace(pipeline.artifacts, variant=variant)
            ablated = dataclasses.replace(pipeline, artifacts=artifacts)
            ablated.controller()
            rows[variant] = _evaluation(ablated)
        task, settings = pipeline.artifacts.task, config.evaluate
        seeds, backend, steps = rows["full"]["seeds"], task.reference_backend, settings.steps
        partial = directory / f"round-{config.rounds}" / "random-policy.json"
        returns = evaluate(
            workers, task, task.random_policy, backend, seeds, settings.num_envs, steps, partial, "random", torch_device
        )
        rows["random"] = report(task, "random", backend, seeds, returns, steps, torch_device)
        if "dream-only" in rows:
            means = (rows[name]["mean"] for name in ("dream-only", "full", "random"))
            rows["dream-only"]["share_of_way_from_random_to_full"] = share_of_way(*means)
        write_json(directory / "ablation.json", rows)
        bar_of_scores(list(rows.items()), directory / "ablation.png", directory)
    print_scores(rows)
    if "dream-only" in rows:
        say(dreaming_text(*(rows[name]["mean"] for name in ("dream-only", "full", "random"))))


def _variants(config: Config) -> list[str]:
    """The ablations that apply to this run."""
    worlds = {phase.world for _, phase in phases_of(config.evolution)}
    uses_memory = not {"h", "c"}.isdisjoint(config.controller.inputs)
    applicable = {
        "v-only": uses_memory,
        "untrained-m": uses_memory and bool(phases_in(config.evolution, "real")),
        "mask-only": get_task(config.task).masked,
        "dream-only": worlds != {"dream"} and bool(phases_in(config.evolution, "dream")),
    }
    return [name for name, applies in applicable.items() if applies]


def _evaluation(pipeline: Pipeline) -> dict[str, Any]:
    pipeline.evaluate()
    return pipeline.artifacts.evaluation()


def demo_run(directory: Path, seed: int) -> None:
    """Train the quick preset; score its agent, the shipped agent and the random policy on the same fresh episodes.

    Writes scores.png and a video of each agent.
    """
    config = dataclasses.replace(preset("quick"), seed=seed)
    rows = {"this run": train_run(config, directory)["evaluation"]}
    shipped = load_agent(config.task)
    task, backend = shipped.task, shipped.task.reference_backend
    seeds, steps, device = (
        episode_seeds("evaluation", seed, config.evaluate.episodes),
        config.evaluate.steps,
        shipped.device,
    )
    with contextlib.closing(make_executor()) as executor:
        for name, policy, identity in (
            ("shipped agent", agent_policy(shipped), shipped.digest()),
            ("random", task.random_policy, "random"),
        ):
            partial = directory / f"demo-{name.replace(' ', '-')}.json"
            returns = evaluate(
                executor, task, policy, backend, seeds, config.evaluate.num_envs, steps, partial, identity, device
            )
            origin = shipped.info if name == "shipped agent" else None
            rows[name] = report(task, name, backend, seeds, returns, steps, device, origin)
    print_scores(rows)
    bar_of_scores(list(rows.items()), directory / "scores.png", directory)
    from worldmodels.render.video import record

    videos = {"this-run.mp4": load_agent(directory), "shipped.mp4": shipped}
    for file, agent in videos.items():
        record(agent, directory / file, seeds[0])
    shown = ", ".join(["scores.png", "curves.png", *videos])
    say(f"look at {shown} in {directory}; play it yourself: worldmodels play {config.task}")


def _metrics_text(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in metrics.items())


def _print_summary(summary: dict[str, Any], directory: Path) -> None:
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
