"""The report on an agent's dreams: how long they stay true, what they foresee, and whether their scores mean anything.

Every part is a CSV and a picture in one folder; a part that is there is not measured again.
"""

import copy
import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.analysis.dream_plots import open_loop_plot, prediction_plot, scatter_plot, temperature_plot
from worldmodels.analysis.fidelity import (
    FRAME_STEPS,
    controllers_of_all_strengths,
    correlation,
    foresee,
    open_loop,
    predicted,
    ranks,
    watch,
)
from worldmodels.core.events import say
from worldmodels.core.files import read_json, write_bytes, write_json
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.collect import record_episodes
from worldmodels.evaluation import statistics
from worldmodels.evolution.dream_fitness import DreamReturns
from worldmodels.evolution.loop import evolve, real_returns
from worldmodels.evolution.subspace import features_met
from worldmodels.execution.environments import Kept
from worldmodels.run.config import DreamReportConfig, in_the_dream, to_json
from worldmodels.run.presets import preset


class DreamReport:
    """Measures part by part into ``directory``."""

    def __init__(self, agent: Agent, config: DreamReportConfig, seed: int, directory: Path) -> None:
        self._agent, self._config, self._seed, self._directory = agent, config, seed, directory
        self._task = agent.task
        self._backend = agent.task.backends[0]
        self._steps = config.steps or agent.task.max_steps

    def run(self) -> dict[str, Any]:
        """All parts; returns and writes ``report.json``."""
        report: dict[str, Any] = {
            "task": self._task.name,
            "prediction": self._part("prediction", self._prediction),
            "correlation": self._part("correlation", self._correlation),
        }
        if self._config.generations:
            report["temperatures"] = [
                self._part(f"temperature-{one:g}", lambda one=one: self._temperature(one))  # type: ignore[misc]
                for one in self._config.temperatures
            ]
            self._table("temperatures.csv", report["temperatures"])
            temperature_plot(report["temperatures"], self._directory / "temperatures.png")
        write_json(self._directory / "report.json", report)
        return report

    def _part(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self._directory / "parts" / f"{name}.json"
        identity = self._identity(name)
        if path.exists():
            before = read_json(path, checksum=True)
            if before["identity"] == identity:
                return dict(before["result"])
        say(f"measuring {name}")
        result = measure()
        write_json(path, {"identity": identity, "result": result}, checksum=True)
        return result

    def _identity(self, name: str) -> dict[str, Any]:
        """All that a part's result depends on."""
        found = {"config": to_json(self._config), "seed": self._seed, "agent": self._agent.digest()}
        if name != "prediction":
            usual = preset("standard", self._task.name)
            found |= {"dream": to_json(usual.dream), "controller": to_json(usual.controller)}
        return found

    def _table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self._directory / name, text.getvalue().encode())

    def _prediction(self) -> dict[str, Any]:
        """How long the dream stays true, and how well reward and end are foreseen."""
        config, task = self._config, self._task
        seeds = episode_seeds("report", self._seed, config.episodes)
        watched, kept = [], Kept(task)
        for start in range(0, len(seeds), task.lockstep):
            chunk = seeds[start : start + task.lockstep]
            episodes = record_episodes(
                kept, self._backend, lambda some: task.noisy(self._agent.policy(len(some)), some), chunk, self._steps
            )
            watched += [watch(self._agent, episode) for episode in episodes]
        kept.close()
        horizon = min(config.horizon, self._steps)
        opened = open_loop(self._agent, watched, horizon, config.starts, self._seed)
        rows = [
            {
                "steps_ahead": ahead,
                "latent_rmse": opened.latent[ahead - 1],
                "latent_rmse_nothing_changes": opened.latent_still[ahead - 1],
                "frame_rmse": opened.frame[ahead - 1] if ahead in FRAME_STEPS else "",
                "frame_rmse_nothing_changes": opened.frame_still[ahead - 1] if ahead in FRAME_STEPS else "",
            }
            for ahead in range(1, horizon + 1)
        ]
        self._table("open_loop.csv", rows)
        open_loop_plot(opened, self._directory / "open_loop.png")
        foreseen = dataclasses.asdict(predicted(self._agent, watched))
        self._table("prediction.csv", [foreseen])
        seen = foresee(self._agent, watched, foreseen["window"])
        prediction_plot(seen, foreseen["window"], self._directory / "prediction.png")
        # Frames, since numbers of z that V leaves to chance are drawn anew and cannot be foreseen by anybody.
        closer = [
            ahead
            for ahead in FRAME_STEPS
            if ahead <= horizon and opened.frame[ahead - 1] < opened.frame_still[ahead - 1]
        ]
        return {
            "starts": opened.starts,
            "closer_than_a_still_picture_until": max(closer, default=0),
            "latent_guess": _number(opened.latent_guess),
            "frame_floor": _number(opened.frame_floor),
        } | {name: _number(value) for name, value in foreseen.items()}

    def _correlation(self) -> dict[str, Any]:
        """Dream against real score of the same controllers."""
        config = self._config
        controllers = controllers_of_all_strengths(self._agent, config.controllers, self._seed)
        seeds = episode_seeds("report", self._seed, config.controller_episodes, 1)
        dreams = episode_seeds("report", self._seed, 4 * config.controller_episodes, 2)
        usual = preset("standard", self._task.name).dream
        real, _ = real_returns(self._agent, self._backend)(controllers, seeds, self._steps, None)
        dreamt, _ = DreamReturns(self._agent, usual.temperature, usual.ends)(controllers, dreams, self._steps)
        x, y = dreamt.mean(axis=1), real.mean(axis=1)
        pearson, spearman = correlation(x, y), correlation(ranks(x), ranks(y))
        rows = [
            {"controller": index, "dream_mean": a, "real_mean": b}
            for index, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True))
        ]
        self._table("correlation.csv", rows)
        scatter_plot(x, y, f"{len(x)} controllers: r = {pearson:.2f}", self._directory / "correlation.png")
        return {"controllers": len(x), "pearson": _number(pearson), "spearman": _number(spearman)}

    def _temperature(self, temperature: float) -> dict[str, Any]:
        """Evolve in dreams of one temperature; score the result there and in the real world."""
        config, agent = self._config, self._agent
        usual = preset("standard", agent.task.name)
        dream = dataclasses.replace(usual.dream, generations=config.generations, temperature=temperature)
        # From the first frame on, unlike training where that begins in the middle; so whole dreams then.
        longest = self._steps if dream.begins else dream.steps or self._steps
        dream = dataclasses.replace(dream, steps=min(self._steps, longest))
        settings = in_the_dream(usual.controller, dream, self._steps)
        settings = dataclasses.replace(settings, validate_every=config.generations)
        fresh = copy.copy(agent)
        fresh.controller = torch.zeros_like(agent.controller)
        measure = DreamReturns(fresh, temperature, dream.ends)
        # The checkpoint knows neither agent nor settings; a folder of another identity is not touched.
        whose = hashlib.sha256(json.dumps(self._identity("temperature"), sort_keys=True).encode()).hexdigest()[:12]
        folder = self._directory / "parts" / f"temperature-{temperature:g}-{whose}"
        seeds = episode_seeds("report", self._seed, config.episodes, 4)
        met = partial(features_met, agent, self._backend, seeds, self._steps) if agent.features else None
        best, _ = evolve(fresh, settings, self._seed, folder, measure, met)
        games = episode_seeds("report", self._seed, config.games, 3)
        controller = best.double().numpy()[None]
        row: dict[str, Any] = {"temperature": temperature}
        for name, returns in (("dream", measure), ("real", real_returns(agent, self._backend))):
            scores, _ = returns(controller, games, self._steps, None)
            found = statistics(scores[0])
            row |= {f"{name}_mean": found["mean"], f"{name}_sd": found["sd"], f"{name}_episodes": len(games)}
        return row


def print_report(report: Mapping[str, Any], directory: Path) -> None:
    """The figures that count, and where the rest is."""
    from rich.console import Console
    from rich.table import Table

    found, correlation = report["prediction"], report["correlation"]
    steps = found["closer_than_a_still_picture_until"]
    say(
        f"a dreamt frame is closer to the real one than a still picture until step {steps}, "
        f"from {found['starts']} beginnings"
    )
    if found["end_auc"] is not None:
        recall, precision = (found[name] for name in ("end_recall", "end_precision"))
        say(
            f"ends: AUC {found['end_auc']:.3f}, recall {_text(recall)}, precision {_text(precision)} "
            "where the weighted end head exceeds 0.5"
        )
    if found["reward_correlation"] is not None:
        say(f"rewards over {found['window']} steps: correlation {found['reward_correlation']:.3f}")
    if found["allowed_accuracy"] is not None:
        say(f"which actions are allowed: {found['allowed_accuracy']:.2%} told rightly")
    pearson = _text(correlation["pearson"])
    say(f"dream and real score of {correlation['controllers']} controllers: correlation {pearson}")
    if "temperatures" in report:
        table = Table(title="controllers evolved in the dream", title_justify="left")
        for column in ("temperature", "dream score", "real score"):
            table.add_column(column, justify="right")
        for row in report["temperatures"]:
            scores = (f"{row[f'{world}_mean']:.0f} ± {row[f'{world}_sd']:.0f}" for world in ("dream", "real"))
            table.add_row(f"{row['temperature']:g}", *scores)
        Console().print(table)
    say(f"tables and pictures: {directory}")


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
