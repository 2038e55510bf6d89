"""What an evolution gets of the speed of acting and of dreaming: the fitness of a whole generation, with all it needs.

Every candidate plays every episode, as in the controller stage; resets, the division of work and the wait for the last
process count. The bound is the speed of acting of the same agent in the same run, see :mod:`worldmodels.bench.acting`.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from worldmodels.agent import Agent
from worldmodels.bench import acting
from worldmodels.bench.busy import busy_process
from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import Measure, Spread, agent_for, interleaved, kind_of, working_backends
from worldmodels.bench.table import Save, SideBySide, extremes, rate
from worldmodels.core.seeds import episode_seeds
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.fitness import Fitness, WorldFitness
from worldmodels.execution.executor import make_executor
from worldmodels.tasks import Task


@dataclass(frozen=True)
class Sizes:
    """The size of a generation."""

    population: int = 16
    """Candidates."""
    episodes: int = 4
    """Episodes of each candidate in the real world."""
    dreams: int = 24
    """Dreams of each candidate."""
    steps: int = 250
    """Longest episode; a tenth of that on a reference backend that is slower than others."""


SIZES = Sizes()


def bench(task: Task, repeats: int, steps: int | None = None, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures; steps: longest episode in one measurement (None: 250)."""
    agent = agent_for(task)
    about = machine(agent.device, task)
    sizes = replace(SIZES, steps=steps or SIZES.steps)
    with contextlib.closing(_Evolution(agent, sizes)) as measured:
        spreads = interleaved(measured.measures(), repeats)
        result = figures(spreads, measured.worlds, measured.backends) | {
            "what": "evolution",
            "task": task.name,
            "agent": kind_of(agent),
            "population": sizes.population,
            "episodes": sizes.episodes,
            "dreams": sizes.dreams,
            "steps": measured.steps,
            "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
            "machine": about,
            "notes": measured.notes + notes(about),
        }
    if save is not None:
        save(result)
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], worlds: list[str], backends: list[str]) -> dict[str, Any]:
    """The main figures, from the medians of the measurements.

    By world, which is a backend or "dream": steps_per_s, busy_steps_per_s (beside a busy process), busy_share; for
    backends also acting_steps_per_s and share_of_acting.
    """
    median = {name: spread.median for name, spread in spreads.items()}
    by_world = {}
    for name in worlds:
        quiet, busy = median[f"{name} generation"], median[f"{name} busy"]
        by_world[name] = {"steps_per_s": quiet, "busy_steps_per_s": busy, "busy_share": busy / quiet}
        if name in backends:
            speed = median[f"{name} acting"]
            by_world[name] |= {"acting_steps_per_s": speed, "share_of_acting": quiet / speed}
    return {"worlds": by_world}


class _Evolution:
    """The measurements. Before them, a small generation in every world starts all processes and environments."""

    def __init__(self, agent: Agent, sizes: Sizes) -> None:
        self._sizes = sizes
        self.backends, self.notes = working_backends(agent.task)
        self._executor = make_executor(device=agent.device.type)
        self._acting = acting.Acting(agent, replace(acting.SIZES, steps=sizes.steps), self._executor)
        self.steps = dict(self._acting.steps)
        self._fitness: dict[str, Fitness] = {name: WorldFitness(self._executor, agent, name) for name in self.backends}
        if agent.starts is not None:
            self._fitness["dream"] = DreamFitness(self._executor, agent, 1.0, "sample")
            self.steps["dream"] = sizes.steps
        self.worlds = list(self._fitness)
        self._controllers = acting.nearby_controllers(agent, sizes.population).double().numpy()
        for name in self.worlds:
            self._generation(name, 2)

    def close(self) -> None:
        """End all processes."""
        self._acting.close()

    def measures(self) -> list[Measure]:
        """All measurements."""
        measures: list[Measure] = []
        for name in self.worlds:
            measures += [partial(self.generation, name), partial(self.busy, name)]
        return measures + [partial(self._acting.acting, name) for name in self.backends]

    def generation(self, world: str) -> dict[str, float]:
        """The fitness of a generation."""
        return {f"{world} generation": self._generation(world, self.steps[world])}

    def busy(self, world: str) -> dict[str, float]:
        """The same beside another process that never rests."""
        with busy_process():
            return {f"{world} busy": self._generation(world, self.steps[world])}

    def _generation(self, world: str, steps: int) -> float:
        """Steps per second of the episodes of a generation."""
        episodes = self._sizes.dreams if world == "dream" else self._sizes.episodes
        began = time.perf_counter()
        _, done = self._fitness[world](self._controllers, episode_seeds("fitness", 1, episodes), steps)
        return done / (time.perf_counter() - began)


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    worlds = result["worlds"]
    table = SideBySide(f"a generation of {result['population']} candidates in {result['task']}", list(worlds))

    def row(name: str, text: Callable[[dict[str, Any]], str]) -> None:
        table.row(name, [text(figures) for figures in worlds.values()])

    table.row(
        "episodes of each candidate", [str(result["dreams" if name == "dream" else "episodes"]) for name in worlds]
    )
    row("generation", lambda one: rate(one["steps_per_s"]))
    table.row("  lowest to highest", [extremes(spreads[f"{name} generation"]) for name in worlds])
    row("beside a busy process", lambda one: rate(one["busy_steps_per_s"]))
    row("  of a quiet machine", lambda one: f"{one['busy_share']:.0%}")
    row("acting, without resets and waiting", lambda one: rate(one.get("acting_steps_per_s")))
    row("  generation, of acting", lambda one: f"{one['share_of_acting']:.0%}" if "share_of_acting" in one else "")
    table.print(result, f"{result['agent']} agent")
