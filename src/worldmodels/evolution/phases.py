"""The whole evolution of a C: phases in dreams and in the real world, one after the other, by one loop."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from worldmodels.agent import Agent
from worldmodels.controller.strategies import STRATEGIES
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.encode import dream_starts
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.fitness import Fitness, SharedFitness, WorldFitness
from worldmodels.evolution.loop import Phase, evolve
from worldmodels.evolution.subspace import recorded_inputs, visited_inputs
from worldmodels.execution.executor import Executor
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN

_VISITED_EPISODES = 24
"""Episodes in which C shows what it sees, for a subspace of what it visits itself."""


def phases_of(config: EvolutionConfig) -> list[tuple[str, PhaseConfig]]:
    """Name and settings of the phases that are done, in order.

    Unknown and repeated names are a :class:`UserError`, and so is an unknown strategy.
    """
    STRATEGIES.target(config.strategy)
    names = config.sequence
    for name in names:
        if name not in config.phases:
            known = ", ".join(config.phases)
            raise UserError(f"--evolution.sequence must name phases of this preset ({known}), got {name!r}")
    if not names or len(set(names)) < len(names):
        raise UserError(f"--evolution.sequence must name phases, each once, got {' '.join(names) or 'nothing'}")
    return [(name, config.phases[name]) for name in names]


@dataclass
class Evolution:
    """Evolves the C of an agent, phase by phase.

    latents: recorded episodes, from which dreams start and subspaces come; dream_models: further Ms that dream instead
    of the agent's own, which then follows, as in the real world; each dreams its share. identity: text on everything
    else that the result depends on.
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
        """Change the agent's C, in place; what each phase reached.

        Each keeps its own checkpoint below ``directory`` and continues from it.
        """
        metrics: dict[str, float] = {}
        phases = phases_of(self.config)
        for number, (name, settings) in enumerate(phases):
            self.agent.controller, found = evolve(
                self.agent, self._phase(number, name, settings), directory / phase_folder(number, name)
            )
            if len(phases) > 1:
                metrics |= {f"{name}_{key}": value for key, value in found.items()}
                metrics["validation"] = found["validation"]
            else:
                metrics |= found
        return metrics

    def _phase(self, number: int, name: str, settings: PhaseConfig) -> Phase:
        real = WorldFitness(self.executor, self.agent, self._backend)
        return Phase(
            name=name,
            settings=settings,
            number=number,
            seed=self.seed,
            strategy=self.config.strategy,
            components=self.config.components,
            fitness=real if settings.world == "real" else self._dream_fitness(),
            validate=real,
            inputs=self._inputs(number, settings) if self.agent.inputs.names else None,
            identity=self.identity,
        )

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
        others: list[Agent | None] = [self._dreaming(memory) for memory in self.dream_models]
        kinds = [
            DreamFitness(self.executor, own, dream.temperature, dream.termination, other) for other in others or [None]
        ]
        return SharedFitness(kinds)

    def _dreaming(self, memory: MDNRNN) -> Agent:
        """The agent with an M and with what dreams start from: recorded moments, and what this M remembers there."""
        dreaming = copy.copy(self.agent)
        dreaming.memory = memory
        steps = self.dream.start_steps or self.agent.task.start_steps
        dreaming.starts, dreaming.start_states = dream_starts(memory, self.latents, steps)
        return dreaming


def phase_folder(number: int, name: str) -> str:
    """Where a phase keeps its checkpoint and its metrics."""
    return f"{number + 1}-{name}"
