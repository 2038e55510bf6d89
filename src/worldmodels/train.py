"""Whole runs: the stages in order, the summary, the ablations and the demo."""

import dataclasses
from pathlib import Path
from typing import Any

from worldmodels.agent import load_agent
from worldmodels.config import Config
from worldmodels.device import choose_device
from worldmodels.evaluation import agent_policy, evaluate, print_scores, report
from worldmodels.presets import preset
from worldmodels.progress import duration, say
from worldmodels.report.plots import bar_of_scores, training_curves
from worldmodels.seeds import episode_seeds
from worldmodels.stages import STAGES, Pipeline
from worldmodels.storage.atomic import write_json
from worldmodels.storage.run import Run
from worldmodels.tasks import get_task


def train_run(config: Config, directory: Path, device: str) -> dict[str, Any]:
    """Every stage of every round; writes summary.json, curves.png and agent/ and prints a table."""
    chosen = choose_device(device)
    _check_backends(config)
    with Run.open(directory, config) as run:
        rows = []
        for number in range(1, config.rounds + 1):
            pipeline = Pipeline(run, chosen, number)
            for name in STAGES:
                if name == "evaluate" and number < config.rounds:
                    continue
                result = getattr(pipeline, name)()
                label = name if config.rounds == 1 else f"{name} {number}"
                rows.append({"name": label, "seconds": result["seconds"], "metrics": result["metrics"]})
        agent = pipeline.agent()
        agent.save(directory / "agent")
        evaluation = pipeline.evaluation()
        summary = {
            "task": config.task,
            "preset": config.preset,
            "stages": rows,
            "seconds_total": sum(row["seconds"] for row in rows),
            "evaluation": evaluation,
        }
        write_json(directory / "summary.json", summary)
        training_curves(directory, directory / "curves.png")
    _print_summary(summary, directory)
    return summary


def _check_backends(config: Config) -> None:
    """Miss a package now, not after an hour at the first stage that needs it."""
    task = get_task(config.task)
    for backend in sorted({config.collect.backend, config.controller.backend, task.reference_backend}):
        task.make(1, backend).close()


def run_stage(name: str, config: Config, directory: Path, device: str) -> None:
    """One stage of the run's last round; earlier ones must be finished."""
    with Run.open(directory, config) as run:
        result = getattr(Pipeline(run, choose_device(device), config.rounds), name)()
    say(f"{name}: {duration(result['seconds'])}; {_metrics_text(result['metrics'])}")


def ablate_run(config: Config, directory: Path, device: str) -> None:
    """Evolve C on z alone and on an untrained M (where C sees what M remembers), on the mask alone (where controls are
    forbidden) and in the dream only.

    The scores are compared with those of the run's agent and the random policy.
    """
    chosen = choose_device(device)
    with Run.open(directory, config) as run:
        pipeline = Pipeline(run, chosen, config.rounds)
        rows: dict[str, Any] = {"full": _evaluation(pipeline)}
        for variant in _variants(config):
            ablated = dataclasses.replace(pipeline, variant=variant)
            ablated.controller()
            rows[variant] = _evaluation(ablated)
        task, backend = pipeline.task, pipeline.task.reference_backend
        seeds = rows["full"]["seeds"]
        partial = directory / f"round-{config.rounds}" / "random-policy.json"
        returns = evaluate(
            task, task.random_policy, backend, seeds, config.evaluate.lockstep, config.evaluate.steps, partial, "random"
        )
        rows["random"] = report(task.name, "random", backend, seeds, returns)
        write_json(directory / "ablation.json", rows)
        bar_of_scores(list(rows.items()), directory / "ablation.png")
    print_scores(rows)
    if "dream-only" in rows:
        # The published bin packing project's measure; of scores below 0, less is better.
        dreamt, real = rows["dream-only"]["mean"], rows["full"]["mean"]
        say(f"goodness of dreaming: {dreamt:.1f} after dreaming / {real:.1f} after real training = {dreamt / real:.2f}")


def _variants(config: Config) -> list[str]:
    """Ablations that say something about this run."""
    masked, dreams_only = get_task(config.task).masked, config.controller.world == "dream"
    remembers = not {"h", "c"}.isdisjoint(config.controller.features)
    chosen = {
        "v-only": remembers,
        "untrained-m": remembers,
        "mask-only": masked,
        "dream-only": not dreams_only,
    }
    return [name for name, says in chosen.items() if says]


def _evaluation(pipeline: Pipeline) -> dict[str, Any]:
    pipeline.evaluate()
    return pipeline.evaluation()


def demo_run(directory: Path, seed: int) -> None:
    """The quick preset end to end, then its agent, the shipped agent and the random policy on the same fresh tracks."""
    config = dataclasses.replace(preset("quick"), seed=seed)
    rows = {"this run": train_run(config, directory, "auto")["evaluation"]}
    shipped = load_agent(config.task)
    task, backend = shipped.task, shipped.task.reference_backend
    seeds = episode_seeds("evaluation", seed, config.evaluate.episodes)
    for name, policy in (("shipped agent", agent_policy(shipped)), ("random", task.random_policy)):
        partial = directory / f"demo-{name.replace(' ', '-')}.json"
        returns = evaluate(task, policy, backend, seeds, config.evaluate.lockstep, 0, partial, name)
        rows[name] = report(task.name, name, backend, seeds, returns)
    print_scores(rows)
    bar_of_scores(list(rows.items()), directory / "scores.png")
    from worldmodels.report.video import record

    videos = {"this-run.mp4": load_agent(directory), "shipped.mp4": shipped}
    for file, agent in videos.items():
        record(agent, directory / file, seeds[0])
    shown = ", ".join(["scores.png", "curves.png", *videos])
    say(f"look at {shown} in {directory}; play it yourself: worldmodels play {config.task}")


def _metrics_text(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in metrics.items())


def _print_summary(summary: dict[str, Any], directory: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{summary['task']}, preset {summary['preset']}", title_justify="left")
    table.add_column("stage")
    table.add_column("time", justify="right")
    table.add_column("result")
    for row in summary["stages"]:
        table.add_row(row["name"], duration(row["seconds"]), _metrics_text(row["metrics"]))
    table.add_row("total", duration(summary["seconds_total"]), "")
    Console().print(table)
    print_scores({"agent": summary["evaluation"]})
    say(f"agent: {directory / 'agent'}; curves: {directory / 'curves.png'}; summary: {directory / 'summary.json'}")
