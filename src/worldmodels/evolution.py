"""The whole evolution of a C: in dreams, in the real world or in one after the other, and polished in the end."""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from worldmodels.agent import Agent
from worldmodels.config import ControllerConfig, DreamConfig, after_dreams, in_the_dream, polishing
from worldmodels.controller.evolve import Returns, evolve, real_returns
from worldmodels.controller.space import features_along, features_met
from worldmodels.dream.returns import DreamReturns
from worldmodels.encoding import dream_starts
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.seeds import episode_seeds
from worldmodels.storage.latents import Latents

_CENTRE = 24
"""Episodes in which a C that is polished shows what it meets."""


def evolve_everywhere(
    agent: Agent,
    settings: ControllerConfig,
    dream: DreamConfig,
    seed: int,
    directory: Path,
    latents: Latents,
    dreamers: Sequence[MDNRNN] = (),
) -> dict[str, float]:
    """Evolve the agent's C, in place, in the worlds that the settings name; return what each evolution reached.

    dreamers: further Ms that dream instead of the agent's own, which then follows; each dreams its share. Every
    evolution keeps its own checkpoint below ``directory`` and continues from it.
    """
    real, metrics, limit = real_returns(agent, settings.backend), dict[str, float](), agent.task.max_steps
    seen = partial(features_along, agent, latents) if agent.features else None
    if "dream" in settings.world:
        folder = directory / "dream" if "real" in settings.world else directory
        own = _beginning(agent, agent.memory, latents, dream)
        others: list[Agent | None] = [_beginning(agent, memory, latents, dream) for memory in dreamers]
        fitness = _shared_out([DreamReturns(own, dream.temperature, dream.ends, other) for other in others or [None]])
        agent.controller, metrics = evolve(
            agent, in_the_dream(settings, dream, limit), seed, folder, fitness, seen, real
        )
        if "real" in settings.world:
            metrics = {f"dream_{name}": value for name, value in metrics.items()}
    if "real" in settings.world:
        begun = after_dreams(settings, limit) if "dream" in settings.world else settings
        agent.controller, found = evolve(agent, begun, seed, directory, real, seen)
        if settings.polish:
            found |= _polished(agent, settings, seed, directory, found["validation"])
        metrics |= found
    return metrics


def _beginning(agent: Agent, memory: MDNRNN, latents: Latents, dream: DreamConfig) -> Agent:
    """The agent with an M and with what dreams begin with: the recorded moments and what this M remembers there."""
    dreamer = copy.copy(agent)
    dreamer.memory = memory
    dreamer.starts, dreamer.start_states = dream_starts(dreamer, latents, dream.begins)
    return dreamer


def _shared_out(worlds: Sequence[Returns]) -> Returns:
    """Every controller dreams its share of the seeds in each of the worlds."""

    def measure(
        controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None
    ) -> tuple[np.ndarray, int]:
        returns, done = np.zeros((len(controllers), len(seeds))), 0
        for index, world in enumerate(worlds):
            share = slice(index, None, len(worlds))
            if len(seeds[share]):
                returns[:, share], dreamt = world(controllers, seeds[share], steps, patience)
                done += dreamt
        return returns, done

    return measure


def _polished(agent: Agent, settings: ControllerConfig, seed: int, directory: Path, reached: float) -> dict[str, float]:
    """Evolve on around what C itself meets; keep the result only if its validation is better than ``reached``."""
    folder, last = directory / f"polish-after-{settings.generations}", polishing(settings, agent.task.max_steps)
    seeds = episode_seeds("centre", seed, _CENTRE)
    met = partial(features_met, agent, settings.backend, seeds, last.horizon) if agent.features else None
    controller, found = evolve(agent, last, seed, folder, real_returns(agent, settings.backend), met)
    if found["validation"] > reached:
        agent.controller = controller
    return {f"polished_{name}": value for name, value in found.items()}
