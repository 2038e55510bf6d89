"""Bin packing: placements and pictures per second of thousands of instances, beside one instance in plain Python."""

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldmodels.bench.measure import Spread, busy_note, interleaved, machine
from worldmodels.core.cores import usable_cores
from worldmodels.tasks.bin_packing.rules import best_fit
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.tasks.bin_packing.world import BinPackingVectorEnv


@dataclass(frozen=True)
class Sizes:
    """How much one measurement does."""

    instances: int = 2048
    """Instances of one array program; every core runs one."""
    pictured: int = 256
    """The same where pictures are drawn."""
    steps: int = 300
    """Steps with the state as observation."""
    pictured_steps: int = 40
    """Steps with pictures."""
    plain_steps: int = 20_000
    """Placements of the plain loop."""


SIZES = Sizes()


def bench(task: BinPacking, repeats: int) -> dict[str, Any]:
    """Measure, print a table and return the figures."""
    about = machine(torch.device("cpu"))
    measured = _Packing(task, SIZES)
    with contextlib.closing(measured):
        spreads = interleaved([measured.state, measured.pictures, measured.copies, measured.plain], repeats)
    result = figures(spreads) | {
        "what": "bin-packing",
        "task": task.name,
        "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
        "machine": about,
        "notes": busy_note(about["load"], about["cores"]),
    }
    _print(result)
    return result


def figures(spreads: Mapping[str, Spread]) -> dict[str, Any]:
    """Medians, the speedup over the plain loop, and the share of the rate at which such pictures can be copied."""
    found = {name: spread.median for name, spread in spreads.items()}
    return found | {
        "speedup": found["placements_per_s"] / found["plain_placements_per_s"],
        "share_of_bound": found["frames_per_s"] / found["bound_frames_per_s"],
    }


class _Packing:
    """Replays what best fit did, so that only the worlds take time."""

    def __init__(self, task: BinPacking, sizes: Sizes) -> None:
        self._task, self._sizes, self._threads = task, sizes, usable_cores()
        self._pool = ThreadPoolExecutor(self._threads)
        self._actions = [self._recorded(count, thread) for thread, count in self._parts("state")]
        self._pictured = [self._recorded(count, thread) for thread, count in self._parts("picture")]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _parts(self, observation: str) -> list[tuple[int, int]]:
        count = self._sizes.instances if observation == "state" else self._sizes.pictured
        return [(thread, count) for thread in range(self._threads)]

    def _make(self, count: int, observation: str, seed: int) -> BinPackingVectorEnv:
        task = self._task
        env = BinPackingVectorEnv(count, task.capacity, task.distribution, observation=observation)
        env.reset(seed=seed * 1_000_000)
        return env

    def _recorded(self, count: int, seed: int) -> np.ndarray:
        env, random, actions = self._make(count, "state", seed), np.random.default_rng(0), []
        for _ in range(self._sizes.steps):
            actions.append(best_fit(env.state(), random))
            env.step(actions[-1])
        return np.array(actions)

    def _timed(self, recorded: list[np.ndarray], observation: str, steps: int) -> float:
        envs = [self._make(actions.shape[1], observation, seed) for seed, actions in enumerate(recorded)]

        def play(thread: int) -> None:
            for actions in recorded[thread][:steps]:
                envs[thread].step(actions)

        began = time.perf_counter()
        list(self._pool.map(play, range(self._threads)))
        seconds = time.perf_counter() - began
        return sum(len(actions[0]) for actions in recorded) * steps / seconds

    def state(self) -> dict[str, float]:
        """Placements with the state as observation."""
        return {"placements_per_s": self._timed(self._actions, "state", self._sizes.steps)}

    def pictures(self) -> dict[str, float]:
        """Placements with pictures as observations."""
        return {"frames_per_s": self._timed(self._pictured, "picture", self._sizes.pictured_steps)}

    def copies(self) -> dict[str, float]:
        """How many pictures can be copied: no drawing is faster."""
        count = self._sizes.pictured
        sources = [np.zeros((count, 64, 64, 3), np.uint8) for _ in range(self._threads)]

        def copy(thread: int) -> None:
            for _ in range(self._sizes.pictured_steps):
                sources[thread].copy()

        began = time.perf_counter()
        list(self._pool.map(copy, range(self._threads)))
        total = count * self._threads * self._sizes.pictured_steps
        return {"bound_frames_per_s": total / (time.perf_counter() - began)}

    def plain(self) -> dict[str, float]:
        """One instance as everyone writes it: a list of counts and a few ifs."""
        capacity, steps = self._task.capacity, self._sizes.plain_steps
        sizes = np.random.default_rng(0).integers(1, 10, steps).tolist()
        counts, total = [0] * capacity, 0
        began = time.perf_counter()
        for size in sizes:
            level = next((one for one in range(capacity - size, 0, -1) if counts[one]), 0)
            if level:
                counts[level] -= 1
            total += size if level else size - capacity
            if level + size < capacity:
                counts[level + size] += 1
            np.array([*counts, size], np.int32)
        return {"plain_placements_per_s": steps / (time.perf_counter() - began)}


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['task']} on {result['machine']['cores']} cores, per second")
    table.add_column("what")
    table.add_column("median", justify="right")
    for name, key in (
        ("item placements, state observed", "placements_per_s"),
        ("pictures", "frames_per_s"),
        ("pictures that can be copied", "bound_frames_per_s"),
        ("placements of one plain instance", "plain_placements_per_s"),
    ):
        table.add_row(name, f"{result[key]:,.0f}")
    console = Console()
    console.print(table)
    console.print(f"{result['speedup']:.0f} times the plain loop; {result['share_of_bound']:.0%} of what can be copied")
    for note in result["notes"]:
        console.print(note)
