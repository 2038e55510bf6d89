"""What an evolution gets of the speed of acting and of dreaming: the fitness of a whole generation, with all it needs.

Every candidate plays every episode, as in the controller stage; resets, the division of work and the wait for the last
process count. A real world is compared with acting by the same agent in the same run and with the bound that simulator
and encoder set, see :mod:`worldmodels.bench.acting`; dreams with the matrix product in the same processes, and with a
single process.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from worldmodels.agent import Agent
from worldmodels.bench import acting
from worldmodels.bench.busy import busy_process
from worldmodels.bench.dream import flops_per_step
from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import (
    Measure,
    Spread,
    agent_for,
    interleaved,
    kind_of,
    peak_gflops,
    working_backends,
)
from worldmodels.bench.table import Save, SideBySide, extremes, rate
from worldmodels.core.device import torch_threads
from worldmodels.core.seeds import episode_seeds
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.evolution.fitness import Fitness, WorldFitness
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import make_executor
from worldmodels.execution.workers import WorkersExecutor
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
    product: int = 2048
    """Rows and columns of the matrices whose product sets the bound of dreams on a CPU."""
    products: int = 8
    """Matrix products of each process."""
    product_on_gpu: int = 8192
    """Rows and columns on a GPU."""


SIZES = Sizes()


def bench(task: Task, repeats: int, steps: int | None = None, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures; steps: longest episode in one measurement (None: 250)."""
    agent = agent_for(task)
    about = machine(agent.device, task)
    sizes = replace(SIZES, steps=steps or SIZES.steps)
    with contextlib.closing(_Evolution(agent, sizes)) as measured:
        spreads = interleaved(measured.measures(), repeats)
        result = figures(spreads, measured.worlds, measured.backends, flops_per_step(agent)) | {
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


def figures(spreads: Mapping[str, Spread], worlds: list[str], backends: list[str], flops: float) -> dict[str, Any]:
    """The main figures, from the medians of the measurements; flops: operations of one dream step.

    By world, which is a backend or "dream": steps_per_s, busy_steps_per_s (beside a busy process), busy_share,
    bound_steps_per_s, share_of_bound; for backends also acting_steps_per_s and share_of_acting; for "dream" also
    dreams_per_s and, where there are several processes, alone_dreams_per_s (by one of them) and scaling.
    """
    median = {name: spread.median for name, spread in spreads.items()}
    by_world = {}
    for name in worlds:
        quiet, busy = median[f"{name} generation"], median[f"{name} busy"]
        by_world[name] = {"steps_per_s": quiet, "busy_steps_per_s": busy, "busy_share": busy / quiet}
        if name in backends:
            speed = median[f"{name} acting"]
            by_world[name] |= {"acting_steps_per_s": speed, "share_of_acting": quiet / speed}
            bound = 1 / (1 / median[f"{name} simulator"] + 1 / median["encoder"])
        else:
            bound = median["peak_gflops"] * 1e9 / flops
            by_world[name] |= {"dreams_per_s": median["dreams"]}
            if "dreams alone" in median:
                alone = median["dreams alone"]
                by_world[name] |= {"alone_dreams_per_s": alone, "scaling": median["dreams"] / alone}
        by_world[name] |= {"bound_steps_per_s": bound, "share_of_bound": quiet / bound}
    return {"worlds": by_world}


class _Evolution:
    """The measurements. Before them, a small generation in every world starts all processes and environments."""

    def __init__(self, agent: Agent, sizes: Sizes) -> None:
        self._sizes, self._device = sizes, agent.device
        self.backends, self.notes = working_backends(agent.task)
        self._executor = make_executor(device=agent.device.type)
        self._acting = acting.Acting(agent, replace(acting.SIZES, steps=sizes.steps), self._executor)
        self.steps = dict(self._acting.steps)
        self._fitness: dict[str, Fitness] = {name: WorldFitness(self._executor, agent, name) for name in self.backends}
        self._alone: Fitness | None = None
        if agent.starts is not None:
            self._fitness["dream"] = DreamFitness(self._executor, agent, 1.0, "sample")
            self.steps["dream"] = sizes.steps
            if self._acting.processes > 1:
                # The same chunks, one after the other in this process.
                self._alone = DreamFitness(WorkersExecutor(1), agent, 1.0, "sample")
        self.worlds = list(self._fitness)
        self._controllers = acting.nearby_controllers(agent, sizes.population).double().numpy()
        for name in self.worlds:
            self._generation(name, self._fitness[name], 2)
        if self._alone is not None:
            self._generation("dream", self._alone, 2)

    def close(self) -> None:
        """End all processes."""
        self._acting.close()

    def measures(self) -> list[Measure]:
        """All measurements."""
        measures: list[Measure] = [self._acting.encoder]
        for name in self.worlds:
            measures += [partial(self.generation, name), partial(self.busy, name)]
        for name in self.backends:
            measures += [partial(self._acting.acting, name), partial(self._acting.simulator, name)]
        if "dream" in self.worlds:
            measures.append(self.peak)
        return measures if self._alone is None else [*measures, self.alone]

    def generation(self, world: str) -> dict[str, float]:
        """The fitness of a generation."""
        steps, episodes = self._generation(world, self._fitness[world], self.steps[world])
        return {f"{world} generation": steps} | ({"dreams": episodes} if world == "dream" else {})

    def busy(self, world: str) -> dict[str, float]:
        """The same beside another process that never rests."""
        with busy_process():
            return {f"{world} busy": self._generation(world, self._fitness[world], self.steps[world])[0]}

    def alone(self) -> dict[str, float]:
        """The fitness of a generation in dreams, by this process with one thread, while the others do nothing."""
        assert self._alone is not None
        with torch_threads(1):
            return {"dreams alone": self._generation("dream", self._alone, self.steps["dream"])[1]}

    def peak(self) -> dict[str, float]:
        """The matrix product in the dtype of dreams, by all processes at once."""
        sizes = self._sizes
        size = sizes.product if self._device.type == "cpu" else sizes.product_on_gpu
        chunks = [partial(_peak, self._device, size, sizes.products)] * self._acting.processes
        return {"peak_gflops": sum(self._executor.map(chunks))}

    def _generation(self, world: str, fitness: Fitness, steps: int) -> tuple[float, float]:
        """Steps and episodes per second of the episodes of a generation."""
        episodes = self._sizes.dreams if world == "dream" else self._sizes.episodes
        began = time.perf_counter()
        returns, done = fitness(self._controllers, episode_seeds("fitness", 1, episodes), steps)
        seconds = time.perf_counter() - began
        return done / seconds, returns.size / seconds


def _peak(device: torch.device, size: int, times: int, environments: Environments) -> float:
    return peak_gflops(device, size, times)


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
    row("  generation, of acting", lambda one: _share(one, "share_of_acting"))
    row("bound", lambda one: rate(one["bound_steps_per_s"]))
    row("  generation, of the bound", lambda one: _share(one, "share_of_bound"))
    if "dreams_per_s" in worlds.get("dream", {}):
        table.section()
        row("whole dreams", lambda one: rate(one.get("dreams_per_s")))
        row("  by one process", lambda one: rate(one.get("alone_dreams_per_s")))
        row("  all processes, times one", lambda one: f"{one['scaling']:.2f}" if "scaling" in one else "")
    table.print(result, f"{result['agent']} agent")


def _share(figures: Mapping[str, Any], name: str) -> str:
    """A share for a table; nothing where it is missing."""
    return f"{figures[name]:.0%}" if name in figures else ""
