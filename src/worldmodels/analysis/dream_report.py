"""The report on an agent's dreams: how fast they deviate from reality, and whether their scores predict real scores.

Every part is written to one folder, as a CSV and a plot. A part that is finished is not measured again, but its files
are written again, in case they were deleted or the plots have changed.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.analysis.config import DreamReportConfig
from worldmodels.analysis.dream_files import as_lists, write_correlation, write_prediction
from worldmodels.analysis.dream_plots import temperature_plot
from worldmodels.analysis.dream_summary import print_report
from worldmodels.analysis.fidelity import (
    FRAME_STEPS,
    controllers_of_all_strengths,
    encode_episode,
    open_loop,
    prediction_scores,
    predictions,
)
from worldmodels.analysis.statistics import correlation, ranks
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import read_json, tensors_digest, write_json
from worldmodels.core.provenance import provenance
from worldmodels.core.seeds import episode_seeds
from worldmodels.core.settings import to_json
from worldmodels.core.tables import finite, write_table
from worldmodels.data.collect import record_episodes
from worldmodels.dream.config import DreamConfig
from worldmodels.evaluation import conditions, limit_note, longest, statistics
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.fitness import Fitness, WorldFitness
from worldmodels.evolution.loop import Phase, evolve
from worldmodels.evolution.subspace import visited_inputs
from worldmodels.execution.executor import Executor
from worldmodels.tasks.base import Policy

__all__ = ["DreamReport", "print_report"]

_PHASE = "dream"
"""The phase whose settings the evolutions at several temperatures use."""
_SETTINGS = {
    "prediction": ("episodes", "horizon", "starts"),
    "correlation": ("controllers", "controller_episodes"),
    "temperature": ("episodes", "generations", "games"),
}
"""The settings of the report on which each kind of part depends, beside its steps."""


@dataclasses.dataclass(frozen=True)
class DreamReport:
    """Measures an agent's dreams and writes the results, part by part, to ``directory``.

    evolution, dream: settings with which the C of such an agent is evolved in dreams. The report evolves controllers
    with those of the phase called "dream", but with the generations and temperatures of ``config``. name: that of the
    agent, for the report and its plots.
    """

    agent: Agent
    config: DreamReportConfig
    seed: int
    directory: Path
    evolution: EvolutionConfig
    dream: DreamConfig
    executor: Executor
    name: str = ""

    def run(self) -> dict[str, Any]:
        """Measure all parts; returns the report, which is also written to ``report.json``.

        Raises :class:`UserError` if controllers are to be evolved and there is no phase called "dream".
        """
        if self.config.generations and _PHASE not in self.evolution.phases:
            names = ", ".join(self.evolution.phases) or "none"
            raise UserError(f"expected a phase called {_PHASE}, whose settings the report uses; phases: {names}")
        prediction = self._part("prediction", self._prediction)
        write_prediction(prediction, self.directory, self.config.episodes, self._title)
        correlated = self._part("correlation", self._correlation)
        write_correlation(correlated, self.directory, self.config.controller_episodes, self._title)
        report = self._about | {"prediction": prediction["summary"], "correlation": correlated["summary"]}
        if self.config.generations:
            report["temperatures"] = [
                self._part(f"temperature-{temperature:g}", partial(self._temperature, temperature))
                for temperature in self.config.temperatures
            ]
            write_table(self.directory / "temperatures.csv", report["temperatures"])
            about = self._title(f"{self.config.games:,} episodes each")
            temperature_plot(report["temperatures"], self.directory / "temperatures.png", about)
        write_json(self.directory / "report.json", report)
        return report

    @property
    def _steps(self) -> int:
        """Longest episode and dream."""
        return longest(self.agent.task, self.config.steps)

    @property
    def _backend(self) -> str:
        return self.evolution.backend or self.agent.task.backends[0]

    @property
    def _about(self) -> dict[str, Any]:
        """What the report says of itself, beside its results."""
        task = self.agent.task
        return {
            "task": task.name,
            "agent": self.name,
            "seed": self.seed,
            "backend": self._backend,
            "device": self.agent.device.type,
            "steps": self._steps,
            "cut_short": self._steps < task.max_steps,
            "made_with": provenance(self.agent.device, task.worlds[self._backend].requires),
        }

    def _title(self, size: str) -> str:
        """The title of a plot; size: how many episodes it shows."""
        agent = f"agent {self.name}" if self.name else ""
        about = (self.agent.task.name, agent, f"seed {self.seed}", size, limit_note(self._about))
        return ", ".join(filter(None, about))

    def _seeds(self, count: int, number: int) -> list[int]:
        return episode_seeds("report", self.seed, count, number)

    def _part(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The stored result of a part if it was measured with the same settings, else a new measurement, stored."""
        path = self.directory / "parts" / f"{name}.json"
        identity = self._identity(name)
        if path.exists():
            before = read_json(path, checksum=True)
            if not isinstance(before, dict) or not isinstance(before.get("result"), dict):
                raise UserError(f"{path} is not a part of a report; delete it and run the same command again")
            if before.get("identity") == identity:
                return dict(before["result"])
        say(f"measuring {name}")
        result = measure()
        write_json(path, {"identity": identity, "result": result}, checksum=True)
        return result

    def _identity(self, name: str) -> dict[str, Any]:
        """Everything that a part's result depends on."""
        agent = self.agent
        kept = {"starts": agent.starts, "start_states": agent.start_states, **agent.moments.tensors()}
        settings = to_json(self.config)
        identity = {
            "config": {key: settings[key] for key in _SETTINGS[name.partition("-")[0]]},
            "steps": self._steps,
            "seed": self.seed,
            "conditions": conditions(self.agent.task, self._backend, self.agent.device),
            "agent": self.agent.digest(),
            "starts": tensors_digest({key: value for key, value in kept.items() if value is not None}),
        }
        # Without dropout, parts that earlier versions measured are still valid.
        dropout = [self.dream.dropout] if self.dream.dropout else []
        if name == "prediction" and agent.memory.hit_head is not None:
            identity["hits"] = True  # which earlier versions did not measure
        if name == "correlation":
            identity["dream"] = [self.dream.temperature, self.dream.termination, *dropout]
        if name.startswith("temperature"):
            evolution = self.evolution
            identity["dream"] = [self.dream.termination, list(self.dream.start_steps), *dropout]
            identity["evolution"] = [evolution.strategy, evolution.components, to_json(evolution.phases[_PHASE])]
        return identity

    def _perturbed(self, seeds: Sequence[int]) -> Policy:
        return self.agent.task.perturbed(self.agent.policy(len(seeds), seeds=seeds), seeds)

    def _prediction(self) -> dict[str, Any]:
        """Errors of dreams some steps ahead, and how well M predicts reward, end and hits one step ahead."""
        config, task = self.config, self.agent.task
        seeds, episodes = episode_seeds("report", self.seed, config.episodes), []
        for start in range(0, len(seeds), task.num_envs):
            chunk = seeds[start : start + task.num_envs]
            recorded = record_episodes(self.executor, task, self._backend, self._perturbed, chunk, self._steps)
            episodes += [encode_episode(self.agent, episode) for episode in recorded]
        horizon = min(config.horizon, self._steps)
        opened = open_loop(self.agent, episodes, horizon, config.starts, self.seed)
        scores = dataclasses.asdict(prediction_scores(self.agent, episodes))
        predicted = predictions(self.agent, episodes, scores["window"])
        # In frames and not in z: dimensions of z that V leaves unused are pure noise, which cannot be predicted.
        closer = [
            ahead
            for ahead in FRAME_STEPS
            if ahead <= horizon and opened.frame[ahead - 1] < opened.frame_still[ahead - 1]
        ]
        summary = {
            "starts": opened.starts,
            "closer_than_a_still_picture_until": max(closer, default=0),
            "latent_guess": opened.latent_guess,
            "frame_floor": opened.frame_floor,
            **scores,
        }
        return {
            "summary": {name: finite(value) for name, value in summary.items()},
            "open_loop": as_lists(opened),
            "predictions": as_lists(predicted),
        }

    def _correlation(self) -> dict[str, Any]:
        """The correlation of dream scores and real scores of the same controllers."""
        config, dream = self.config, self.dream
        controllers = controllers_of_all_strengths(self.agent, config.controllers, self.seed)
        episodes, dreams = self._seeds(config.controller_episodes, 1), self._seeds(4 * config.controller_episodes, 2)
        in_dreams = DreamFitness(self.executor, self.agent, dream.temperature, dream.termination, dropout=dream.dropout)
        real, _ = WorldFitness(self.executor, self.agent, self._backend)(controllers, episodes, self._steps)
        dreamt, _ = in_dreams(controllers, dreams, self._steps)
        x, y = dreamt.mean(axis=1), real.mean(axis=1)
        pearson, spearman = correlation(x, y), correlation(ranks(x), ranks(y))
        summary = {"controllers": len(x), "pearson": finite(pearson), "spearman": finite(spearman)}
        return {"summary": summary, "dream_means": x.tolist(), "real_means": y.tolist()}

    def _temperature(self, temperature: float) -> dict[str, Any]:
        """Evolve a controller in dreams of one temperature, and score it in such dreams and in the real world."""
        config = self.config
        agent = copy.copy(self.agent)
        agent.controller = torch.zeros_like(agent.controller)
        in_dreams = DreamFitness(self.executor, agent, temperature, self.dream.termination, dropout=self.dream.dropout)
        phase = Phase(
            name=f"temperature {temperature:g}",
            settings=self._phase_settings(),
            number=0,
            seed=self.seed,
            strategy=self.evolution.strategy,
            components=self.evolution.components,
            fitness=in_dreams,
            validate=in_dreams,
            inputs=self._visited if agent.inputs.names else None,
        )
        # The folder's name depends on everything that the evolution does, so that no other checkpoint is continued.
        evolved = self._identity("temperature")
        del evolved["config"]["games"]
        identity = hashlib.sha256(json.dumps(evolved, sort_keys=True).encode()).hexdigest()[:12]
        best, _ = evolve(agent, phase, self.directory / "parts" / f"temperature-{temperature:g}-{identity}")
        games, controller = self._seeds(config.games, 3), best.double().numpy()[None]
        row: dict[str, Any] = {"temperature": temperature}
        worlds: dict[str, Fitness] = {"dream": in_dreams, "real": WorldFitness(self.executor, agent, self._backend)}
        for name, fitness in worlds.items():
            scores, _ = fitness(controller, games, self._steps)
            summary = statistics(scores[0])
            row |= {f"{name}_mean": summary["mean"], f"{name}_sd": summary["sd"], f"{name}_episodes": len(games)}
        return row | {"real_minus_dream": row["real_mean"] - row["dream_mean"]}

    def _visited(self) -> np.ndarray:
        """Inputs (n, F) of the agent's own C along new real episodes."""
        seeds = self._seeds(self.config.episodes, 4)
        return visited_inputs(self.executor, self.agent, self._backend, seeds, self._steps)

    def _phase_settings(self) -> PhaseConfig:
        """The settings of the phase called "dream", with the report's own generations and length of dreams.

        There is only one validation, at the end, so that the last mean of the distribution is the result.
        """
        settings, generations = self.evolution.phases[_PHASE], self.config.generations
        # These dreams start at the moments that the agent keeps. If those of training started at other steps, their
        # limit does not apply.
        other_starts = bool(self.dream.start_steps) and self.dream.start_steps != self.agent.task.start_steps
        longest = self._steps if other_starts else settings.max_steps or self._steps
        return dataclasses.replace(
            settings,
            generations=generations,
            validate_every=generations,
            validation_episodes=1,
            reevaluate_top_k=1,
            max_steps=min(self._steps, longest),
            max_steps_growth=0,
        )
