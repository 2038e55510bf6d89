"""Ablations of a run: C is evolved again without a part of the agent, and the scores are compared."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldmodels.analysis.dream_summary import dreaming_text, share_of_way
from worldmodels.analysis.plots import bar_of_scores
from worldmodels.core.device import choose_device
from worldmodels.core.events import say
from worldmodels.core.files import write_json
from worldmodels.evaluation import evaluate, print_scores, report
from worldmodels.run.config import Config
from worldmodels.run.experiments import opened
from worldmodels.run.pipeline import Pipeline
from worldmodels.run.variants import budget, chosen_variants, difference, label


def ablate_run(
    config: Config, directory: Path, device: str = "auto", executor: str = "auto", variants: Sequence[str] = ()
) -> None:
    """Evolve and score ablations: other inputs of C, an untrained M, the action mask alone, dreams alone.

    variants: names of :data:`~worldmodels.run.names.VARIANTS`; none means all that apply to the run. One that does
    not apply is a :class:`UserError`.

    Each goes through the rounds of the run, with the V, M and latents of each round, and its C continues from its C of
    the round before. Writes ablation.json and ablation.png, and prints a table of these scores beside those of the
    run's agent and of the random policy, with a line on what every ablation lacks. All of them play the same episodes.
    """
    torch_device = choose_device(device)
    with opened(config, directory, executor, torch_device, create=False) as (run, workers):
        chosen = chosen_variants(run.config, variants)
        last = Pipeline(run.artifacts(config.rounds), torch_device, workers)
        rows: dict[str, Any] = {"full": _scores(last) | {"evolution": budget(run.config, "")}}
        names = {"full": "full", "random": "random"}
        for variant in chosen:
            for number in range(1, config.rounds + 1):
                artifacts = dataclasses.replace(run.artifacts(number), variant=variant)
                pipeline = Pipeline(artifacts, torch_device, workers)
                pipeline.controller()
            lacks = difference(run.config, variant)
            rows[variant] = _scores(pipeline) | {"differs": lacks, "evolution": budget(run.config, variant)}
            names[variant] = label(run.config, variant)
        task, settings = last.artifacts.task, config.evaluate
        seeds, backend, steps = rows["full"]["seeds"], task.reference_backend, settings.steps
        partial = directory / f"round-{config.rounds}" / "random-policy.json"
        episodes = evaluate(
            workers, task, task.random_policy, backend, seeds, settings.num_envs, steps, partial, "random", torch_device
        )
        rows["random"] = report(task, "random", backend, seeds, episodes, steps, torch_device)
        if "dream-only" in rows:
            means = (rows[name]["mean"] for name in ("dream-only", "full", "random"))
            rows["dream-only"]["share_of_way_from_random_to_full"] = share_of_way(*means)
        write_json(directory / "ablation.json", rows)
        shown = {names[name]: row for name, row in rows.items()}
        bar_of_scores(list(shown.items()), directory / "ablation.png", directory)
    print_scores(shown)
    for name, row in rows.items():
        if "differs" in row:
            say(f"{name}: {row['differs']}")
    if "dream-only" in rows:
        say(dreaming_text(*(rows[name]["mean"] for name in ("dream-only", "full", "random"))))


def _scores(pipeline: Pipeline) -> dict[str, Any]:
    pipeline.evaluate()
    return pipeline.artifacts.evaluation()
