"""The speed of a world alone: steps per second without an agent.

It is compared with copying the observations (the bound) and with one stock environment (the plain loop). The actions
are those of a rule that has observations of its own, or of the random policy for a task without such rules; they are
recorded beforehand and replayed, so that only the world takes time. A world that is an array program is run once per
core, in threads; others use all cores themselves.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from worldmodels.bench.clocked import Recording, replayed_steps
from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import Measure, Spread, fastest_backend, interleaved, stock_environment
from worldmodels.bench.table import Save, SpeedTable
from worldmodels.core.cores import usable_cores
from worldmodels.core.seeds import episode_seeds
from worldmodels.execution.environments import make_envs
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import ArrayWorld, PolicyFor, ProcessWorld


@dataclass(frozen=True)
class Size:
    """The size of one measurement: environments that run together (in each thread), and steps of each of them."""

    num_envs: int
    steps: int


@dataclass(frozen=True)
class Sizes:
    """The size of a measurement for each kind of world."""

    array: Size = Size(256, 40)
    """An array program with pictures."""
    array_rule: Size = Size(2048, 300)
    """An array program with the observations of its rules."""
    pool: Size = Size(128, 250)
    """EnvPool."""
    processes: Size = Size(50, 60)
    """Environments in worker processes."""
    plain_steps: int = 300
    """Steps of the plain loop."""


SIZES = Sizes()


def bench(task: Task, repeats: int, steps: int | None = None, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures.

    steps: of every environment in one measurement (None: as many as take a few seconds).
    """
    about = machine(torch.device("cpu"), task)
    with contextlib.closing(_World(task, SIZES, steps)) as measured:
        spreads = interleaved(measured.measures(), repeats)
    result = figures(spreads) | {
        "what": "world",
        "task": task.name,
        "backend": measured.backend,
        "rule": measured.rule,
        "threads": measured.threads,
        "num_envs": {kind: size.num_envs for kind, size in measured.sizes.items()},
        "steps": {kind: size.steps for kind, size in measured.sizes.items()},
        "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
        "machine": about,
        "notes": measured.notes + notes(about),
    }
    if save is not None:
        save(result)
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """Medians, shares of the bound, and the speedup over the plain loop (None if there is none).

    Names that begin with rule_ are of the world with the observations of the task's rules, if they have their own.
    """
    values: dict[str, Any] = {name: spread.median for name, spread in spreads.items()}
    for kind in ("", "rule_"):
        if f"{kind}steps_per_s" in values:
            values[f"{kind}share_of_bound"] = values[f"{kind}steps_per_s"] / values[f"{kind}bound_steps_per_s"]
    plain = values.setdefault("plain_steps_per_s", None)
    return values | {"speedup": values["steps_per_s"] / plain if plain else None}


class _World:
    """The measurements, by kind of observation: "" for those that agents get, "rule_" for those that rules get."""

    def __init__(self, task: Task, sizes: Sizes, steps: int | None) -> None:
        self._plain_steps = sizes.plain_steps
        self.backend, self.notes = fastest_backend(task)
        self._tasks = {"": task}
        self.rule: str | None = None
        player, policy = task, cast(PolicyFor, task.random_policy)
        for name in task.rules[:1]:
            sees, rule = task.rule(name)
            if sees is not task:
                self.rule, player, policy = name, sees, rule
                self._tasks["rule_"] = sees
        self.sizes = {kind: _size(variant, kind, self.backend, sizes, steps) for kind, variant in self._tasks.items()}
        self.threads = usable_cores() if isinstance(task.worlds[self.backend], ArrayWorld) else 1
        self._pool = ThreadPoolExecutor(usable_cores())
        self._envs: dict[str, list[VectorEnv]] = {}
        self._stock, missing = stock_environment(task)
        self.notes += missing
        most = max(size.num_envs for size in self.sizes.values())
        longest = max(size.steps for size in self.sizes.values())
        self._seeds = [episode_seeds("fitness", 1, most, thread) for thread in range(self.threads)]
        self._actions = []
        for seeds in self._seeds:
            recording = Recording()
            with contextlib.closing(make_envs(player, most, self.backend)) as env:
                rollout(player, env, policy(seeds), seeds, longest, observer=recording)
            self._actions.append(np.array(recording.actions))

    def close(self) -> None:
        """Close the environments and end the threads."""
        self._pool.shutdown()
        for env in [env for envs in self._envs.values() for env in envs]:
            env.close()
        if self._stock is not None:
            self._stock.close()

    def measures(self) -> list[Measure]:
        """All measurements of this world."""
        measures: list[Measure] = []
        for kind in self._tasks:
            measures += [partial(self.world, kind), partial(self.copies, kind)]
        return measures if self._stock is None else [*measures, self.plain]

    def world(self, kind: str) -> dict[str, float]:
        """Steps of the world with the recorded actions; resets are not timed."""
        size, envs = self.sizes[kind], self._fresh(kind)
        seconds, steps = self._timed(
            lambda thread: replayed_steps(envs[thread], self._actions[thread][: size.steps, : size.num_envs]),
            self.threads,
        )
        return {f"{kind}steps_per_s": steps / seconds}

    def copies(self, kind: str) -> dict[str, float]:
        """Copies of the observations on all cores: no world that returns new arrays at every step can be faster."""
        size, observations = self.sizes[kind], self._observations(kind)

        def copy(thread: int) -> int:
            for _ in range(size.steps):
                observations.copy()
            return size.steps * size.num_envs

        seconds, steps = self._timed(copy, usable_cores())
        return {f"{kind}bound_steps_per_s": steps / seconds}

    def plain(self) -> dict[str, float]:
        """Steps of one stock environment with the actions recorded for row 0; resets are not timed."""
        assert self._stock is not None
        actions, seed = self._actions[0][:, 0], self._seeds[0][0]
        seconds, place = 0.0, len(actions)
        for _ in range(self._plain_steps):
            if place == len(actions):
                self._stock.reset(seed=seed)
                place = 0
            began = time.perf_counter()
            _, _, terminated, truncated, _ = self._stock.step(actions[place])
            seconds += time.perf_counter() - began
            place = len(actions) if terminated or truncated else place + 1
        return {"plain_steps_per_s": self._plain_steps / seconds}

    def _fresh(self, kind: str) -> list[VectorEnv]:
        """Environments that have just been reset; they are made once, since processes take seconds to start."""
        count = self.sizes[kind].num_envs
        if kind not in self._envs:
            self._envs[kind] = [make_envs(self._tasks[kind], count, self.backend) for _ in range(self.threads)]
        for env, seeds in zip(self._envs[kind], self._seeds, strict=True):
            env.reset(seed=seeds[:count])  # type: ignore[arg-type]
        return self._envs[kind]

    def _observations(self, kind: str) -> np.ndarray:
        """Observations (N, ...) of the world, copied so that later steps do not overwrite them."""
        (env, *_), count = self._fresh(kind), self.sizes[kind].num_envs
        observations, *_ = env.step(self._actions[0][0, :count])
        return np.array(observations)

    def _timed(self, work: Callable[[int], int], threads: int) -> tuple[float, int]:
        """Run ``work``, a function of a thread's number, in all threads at once; seconds, and the sum of results."""
        began = time.perf_counter()
        steps = sum(self._pool.map(work, range(threads)))
        return time.perf_counter() - began, steps


def _size(task: Task, kind: str, backend: str, sizes: Sizes, steps: int | None) -> Size:
    world = task.worlds[backend]
    if isinstance(world, ArrayWorld):
        size = sizes.array_rule if kind else sizes.array
    else:
        size = sizes.processes if isinstance(world, ProcessWorld) else sizes.pool
        size = Size(min(size.num_envs, task.max_envs), size.steps)
    return Size(size.num_envs, min(steps or size.steps, task.max_steps))


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    table = SpeedTable(f"the world of {result['task']} alone ({result['backend']})", spreads)
    for kind, what in {"": "pictures", "rule_": f"what {result['rule']} sees"}.items():
        if kind in result["num_envs"]:
            count = result["threads"] * result["num_envs"][kind]
            table.rate(f"{count:,} environments, {what}: steps", f"{kind}steps_per_s")
            table.rate("  the bound: copies of these observations", f"{kind}bound_steps_per_s")
            table.figure("  share of the bound", f"{result[f'{kind}share_of_bound']:.1%}")
    table.rate("plain loop, one stock environment: steps", "plain_steps_per_s")
    if result["speedup"] is not None:
        table.figure("  times the plain loop, with pictures", f"{result['speedup']:.1f}")
    table.print(result)
