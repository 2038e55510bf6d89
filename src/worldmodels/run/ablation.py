"""Ablations of a run: C is evolved again without a part of the agent, and the scores are compared."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from worldmodels.analysis.plots import bar_of_scores
from worldmodels.core.device import choose_device
from worldmodels.core.events import say
from worldmodels.core.files import write_json
from worldmodels.evaluation import evaluate, print_scores, report
from worldmodels.run.config import Config
from worldmodels.run.experiments import opened
from worldmodels.run.pipeline import Pipeline
from worldmodels.run.variants import budget, difference, label, variants_of


def ablate_run(config: Config, directory: Path, device: str = "auto", executor: str = "local") -> None:
    """Evolve and score the ablations that apply: C on z alone, an untrained M, the action mask alone, dreams alone.

    Each goes through the rounds of the run, with the V, M and latents of each round, and its C continues from its C of
    the round before. Writes ablation.json and ablation.png, and prints a table of these scores beside those of the
    run's agent and of the random policy, with a line on what every ablation lacks. All of them play the same episodes.
    """
    with opened(config, directory, executor) as (run, workers):
        torch_device = choose_device(device)
        last = Pipeline(run.artifacts(config.rounds), torch_device, workers)
        rows: dict[str, Any] = {"full": _scores(last) | {"evolution": budget(run.config, "")}}
        names = {"full": "full", "random": "random"}
        for variant in variants_of(run.config):
            for number in range(1, config.rounds + 1):
                artifacts = dataclasses.replace(run.artifacts(number), variant=variant)
                pipeline = Pipeline(artifacts, torch_device, workers)
                pipeline.controller()
            lacks = difference(run.config, variant)
            rows[variant] = _scores(pipeline) | {"differs": lacks, "evolution": budget(run.config, variant)}
            names[variant] = label(run.config, variant)
        task, settings = last.artifacts.task, config.evaluate
        seeds, backend = rows["full"]["seeds"], task.reference_backend
        partial = directory / f"round-{config.rounds}" / "random-policy.json"
        returns = evaluate(
            workers, task, task.random_policy, backend, seeds, settings.num_envs, settings.steps, partial, "random"
        )
        rows["random"] = report(task.name, "random", backend, seeds, returns)
        write_json(directory / "ablation.json", rows)
        shown = {names[name]: row for name, row in rows.items()}
        bar_of_scores(list(shown.items()), directory / "ablation.png", directory)
    print_scores(shown)
    for name, row in rows.items():
        if "differs" in row:
            say(f"{name}: {row['differs']}")
    if "dream-only" in rows:
        # The measure of the published bin packing project; for negative scores, a smaller ratio is better.
        dreamt, real, chance = (rows[name]["mean"] for name in ("dream-only", "full", "random"))
        ratio = (
            f"{dreamt:.1f} after dreaming / {real:.1f} after real training = {dreamt / real if real else math.nan:.2f}"
        )
        way = f"{100 * (dreamt - chance) / (real - chance):.0f}%" if real != chance else "n/a"
        say(f"goodness of dreaming: {ratio}; dreams lead {way} of the way from random play to real training")


def _scores(pipeline: Pipeline) -> dict[str, Any]:
    pipeline.evaluate()
    return pipeline.artifacts.evaluation()
