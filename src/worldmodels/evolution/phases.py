"""The evolution of a C: phases in dreams and in the real world, one after the other."""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.controller.strategies import STRATEGIES
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.ridge import LinearMap
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.encode import set_starts
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.finishing import check_finishing
from worldmodels.evolution.fitness import Fitness, SharedFitness, WorldFitness
from worldmodels.evolution.loop import Phase, evolve
from worldmodels.evolution.mirror import check_symmetry, mirror_map
from worldmodels.evolution.subspace import recorded_inputs, visited_inputs
from worldmodels.execution.executor import Executor
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN

_VISITED_EPISODES = 24
"""Episodes that C plays to sample its own inputs, for phases whose subspace is "visited"."""


def phases_of(config: EvolutionConfig) -> list[tuple[str, PhaseConfig]]:
    """Names and settings of the phases to run in the first round, in order.

    Raises :class:`UserError` if a phase is unknown or named twice, if there is none, or if the strategy is unknown.
    """
    STRATEGIES.target(config.strategy)
    for option, names in (("sequence", config.sequence), ("later-sequence", config.later_sequence)):
        for name in names:
            if name not in config.phases:
                known = ", ".join(config.phases)
                raise UserError(f"--evolution.{option} must name phases of this preset ({known}), got {name!r}")
        if len(set(names)) < len(names) or (not names and option == "sequence"):
            raise UserError(f"--evolution.{option} must name phases, each once, got {' '.join(names) or 'nothing'}")
    return [(name, config.phases[name]) for name in config.sequence]


def phases_of_all_rounds(config: EvolutionConfig) -> list[tuple[str, PhaseConfig]]:
    """Names and settings of the phases of the first round, and of others that only later rounds run."""
    first = phases_of(config)
    return first + [(name, config.phases[name]) for name in config.later_sequence if name not in config.sequence]


def phases_in(config: EvolutionConfig, world: str) -> tuple[str, ...]:
    """Names of the phases, performed or not, in which candidates get their fitness in ``world``, "real" or "dream"."""
    return tuple(name for name, phase in config.phases.items() if phase.world == world)


@dataclass
class Evolution:
    """Evolves the C of an agent, phase by phase.

    latents: recorded episodes, from which dreams start and search spaces are computed; dream_models: additional Ms that
    dream instead of the agent's own M, each a share of the episodes (the agent's M then only tracks its hidden state,
    as in the real world); identity: a text for everything else that the result depends on.
    """

    agent: Agent
    config: EvolutionConfig
    dream: DreamConfig
    executor: Executor
    seed: int
    latents: Latents
    dream_models: Sequence[MDNRNN] = ()
    identity: str = ""

    def run(self, directory: Path) -> dict[str, float]:
        """Evolve the agent's C in place; returns the metrics of all phases, of several starts those of the best one.

        Every phase keeps its checkpoint in its own folder in ``directory``, and continues from it.
        """
        phases = phases_of(self.config)
        check_finishing(phases, self.agent.task)
        check_symmetry(self.config, self.agent.task)
        repeated = len(phases) - 1 or 1
        metrics = self._best_of_starts(range(repeated), directory)
        return metrics | self._run(range(repeated, len(phases)), directory)

    def _best_of_starts(self, numbers: range, directory: Path) -> dict[str, float]:
        """Run the phases with these numbers once per start until one is good, and keep the C that validates best."""
        before, outcomes = self.agent.controller, []
        good = math.inf if self.config.good_start is None else self.config.good_start
        for start in range(self.config.starts):
            self.agent.controller = before
            metrics = self._run(numbers, directory, start)
            outcomes.append((self.agent.controller, metrics))
            if metrics["validation"] >= good:
                break
        scores = [metrics["validation"] for _, metrics in outcomes]
        best = int(np.argmax(scores))
        self.agent.controller, metrics = outcomes[best]
        if self.config.starts == 1:
            return metrics
        told = ", ".join(f"{score:,.4g}" for score in scores)
        enough = "" if len(scores) == self.config.starts else "; no further start is needed"
        say(f"start {best + 1} of {len(scores)} goes on: validation {told}{enough}")
        of_all = {f"start_{start + 1}_validation": score for start, score in enumerate(scores)}
        return metrics | of_all | {"best_start": best + 1.0}

    def _run(self, numbers: range, directory: Path, start: int = 0) -> dict[str, float]:
        """Run the phases with these numbers, one after the other."""
        metrics: dict[str, float] = {}
        phases = phases_of(self.config)
        for number in numbers:
            name, settings = phases[number]
            self.agent.controller, phase_metrics = evolve(
                self.agent, self.phase(number, name, settings, start), directory / phase_folder(number, name, start)
            )
            if len(phases) > 1:
                metrics |= {f"{name}_{key}": value for key, value in phase_metrics.items()}
                metrics["validation"] = phase_metrics["validation"]
            else:
                metrics |= phase_metrics
        return metrics

    def phase(self, number: int, name: str, settings: PhaseConfig, start: int = 0) -> Phase:
        """The phase with this index, name, settings and start, from the C that the agent has when it begins."""
        real = WorldFitness(self.executor, self.agent, self._backend)
        return Phase(
            name=_label(name, start),
            settings=settings,
            number=number,
            seed=self.seed,
            strategy=self.config.strategy,
            components=self.config.components,
            fitness=real if settings.world == "real" else self._dream_fitness(),
            validate=real,
            inputs=self._inputs(number, settings) if self.agent.inputs.names else None,
            identity=self.identity,
            start=start,
            mirror=self._mirrored if self._symmetric else None,
        )

    @property
    def _symmetric(self) -> bool:
        agent = self.agent
        return self.config.symmetry == "mirror" and bool(agent.inputs.names) and not agent.layout.hidden

    def _mirrored(self, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(self._mirror_map(torch.from_numpy(inputs).double()))

    @functools.cached_property
    def _mirror_map(self) -> LinearMap:
        return mirror_map(self.agent, self.latents)

    @property
    def _backend(self) -> str:
        return self.config.backend or self.agent.task.backends[0]

    def _inputs(self, number: int, settings: PhaseConfig) -> Callable[[], np.ndarray]:
        if settings.subspace == "recorded":
            return partial(recorded_inputs, self.agent, self.latents)
        seeds = episode_seeds("visited", self.seed, _VISITED_EPISODES, number)
        limit = settings.max_steps or self.agent.task.max_steps
        return partial(visited_inputs, self.executor, self.agent, self._backend, seeds, limit)

    def _dream_fitness(self) -> Fitness:
        dream, agent = self.dream, self.agent
        own = self._dreaming(agent.memory)
        dream_models: list[Agent | None] = [self._dreaming(memory) for memory in self.dream_models]
        return SharedFitness(
            [
                DreamFitness(
                    self.executor, own, dream.temperature, dream.termination, dream_model, dropout=dream.dropout
                )
                for dream_model in dream_models or [None]
            ]
        )

    def _dreaming(self, memory: MDNRNN) -> Agent:
        """A copy of the agent with the given M; its dreams start from recorded moments, with the states of this M."""
        dreaming = copy.copy(self.agent)
        dreaming.memory = memory
        set_starts(dreaming, self.latents, self.dream.start_steps or self.agent.task.start_steps)
        return dreaming


def progress_names(config: EvolutionConfig) -> list[str]:
    """The names under which the phases of the first round report their progress, in order."""
    *names, last = (name for name, _ in phases_of(config))
    repeated, after = (names, [last]) if names else ([last], [])
    return [_label(name, start) for start in range(config.starts) for name in repeated] + after


def _label(name: str, start: int) -> str:
    return f"{name}, start {start + 1}" if start else name


def phase_folder(number: int, name: str, start: int = 0) -> str:
    """Name of the folder in which a phase keeps its checkpoint and its metrics: "1-real", "1-real-start-2" ..."""
    return f"{number + 1}-{name}" + (f"-start-{start + 1}" if start else "")
