"""The speed of acting: simulator, encoder, both together in an agent, and the bound that follows, for every backend.

Every process that acts is measured at the same time, as in evolution, each with environments of its own. The agent and
the simulator alone are measured in the same episodes with the same actions: those of the agent's first rollout are
recorded and replayed in the simulator. Rows that have ended are neither stepped nor counted; resets are not timed.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.bench.busy import busy_process
from worldmodels.bench.clocked import Clocked, ClockedEnv, Recording, replayed_steps
from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import (
    Measure,
    Spread,
    agent_for,
    interleaved,
    kind_of,
    seconds_of,
    stock_environment,
    working_backends,
)
from worldmodels.bench.plain import PlainAgent
from worldmodels.bench.table import Save, SideBySide, extremes, rate
from worldmodels.core.cores import usable_cores
from worldmodels.core.device import torch_threads
from worldmodels.core.seeds import episode_seeds
from worldmodels.execution.environments import SERIAL_ROWS, Environments
from worldmodels.execution.executor import Chunk, Executor, make_executor
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task


@dataclass(frozen=True)
class Sizes:
    """The size of one measurement."""

    rows: int = SERIAL_ROWS
    """Environments of one process."""
    rows_on_gpu: int = 128
    """Environments if the agent is on a GPU, where a single process acts; at most the task's limit."""
    steps: int = 250
    """Steps of every environment; a tenth of them on a reference backend that is slower than others."""
    batches: int = 100
    """Batches that every process encodes in the measurement of the encoder alone."""
    plain_steps: int = 300
    """Steps of the plain loop."""


SIZES = Sizes()


def bench(task: Task, repeats: int, steps: int | None = None, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures; steps: of every environment in one measurement (None: 250)."""
    agent = agent_for(task)
    about = machine(agent.device, task)
    executor = make_executor(device=agent.device.type)
    with contextlib.closing(Acting(agent, replace(SIZES, steps=steps or SIZES.steps), executor)) as measured:
        spreads = measured.run(repeats)
        result = figures(spreads, measured.backends)
        result |= {
            "what": "acting",
            "task": task.name,
            "agent": kind_of(agent),
            "processes": measured.processes,
            "rows": measured.rows,
            "steps": measured.steps,
            "rows_ended": measured.rows_ended,
            "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
            "machine": about,
            "notes": measured.notes + notes(about),
        }
    if save is not None:
        save(result)
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], backends: Sequence[str]) -> dict[str, Any]:
    """The main figures, from the medians of the measurements; the plain loop may be missing.

    By backend: simulator_steps_per_s, bound_steps_per_s, acting_steps_per_s, share_of_bound, busy_steps_per_s (acting
    beside a busy process), busy_share (of acting on a quiet machine), alone_steps_per_s (by a single process), scaling
    (of all processes against one), and microseconds, which one process spends per step of one row in the simulator
    and in the policy, on frames (a part of the policy), and in the loop.
    """
    median = {name: spread.median for name, spread in spreads.items()}
    encoder, plain = median["encoder"], median.get("plain")
    by_backend: dict[str, dict[str, Any]] = {}
    for name in backends:
        simulator, acting = median[f"{name} simulator"], median[f"{name} acting"]
        # They take turns in every process, so their times add up: nothing that does both for each frame can be faster.
        bound = 1 / (1 / simulator + 1 / encoder)
        busy, alone = median[f"{name} busy"], median[f"{name} alone"]
        by_backend[name] = {
            "simulator_steps_per_s": simulator,
            "bound_steps_per_s": bound,
            "acting_steps_per_s": acting,
            "share_of_bound": acting / bound,
            "busy_steps_per_s": busy,
            "busy_share": busy / acting,
            "alone_steps_per_s": alone,
            "scaling": acting / alone,
            "microseconds": {part: median[f"{name} us {part}"] for part in ("simulator", "policy", "loop")}
            | {"frames": median["us frames"]},
        }
    fastest = by_backend[backends[0]]["acting_steps_per_s"]
    return {
        "encoder_frames_per_s": encoder,
        "backends": by_backend,
        "plain_steps_per_s": plain,
        "speedup": fastest / plain if plain else None,
    }


class Acting:
    """The measurements. Before them, a rollout on each backend that is not timed warms up and records the actions."""

    def __init__(self, agent: Agent, sizes: Sizes, executor: Executor) -> None:
        self.agent, self._task, self._sizes, self._executor = agent, agent.task, sizes, executor
        on_gpu = agent.device.type == "cuda"
        self.processes = 1 if on_gpu else usable_cores()
        self.rows = min(sizes.rows_on_gpu if on_gpu else sizes.rows, agent.task.max_envs)
        self.backends, self.notes = working_backends(self._task)
        self.steps = {name: self._steps(name) for name in self.backends}
        self._controllers = nearby_controllers(agent, self.rows)
        self._recorded = {}
        for name in self.backends:
            # One per process, so that each makes its environments now.
            self._recorded[name] = self._on_all(partial(_record, agent, name, self._controllers, self.steps[name]))[0]
        self.rows_ended = {name: recorded.rows_ended for name, recorded in self._recorded.items()}
        self._observations = self._recorded[self.backends[0]].observations
        self._stock, missing = stock_environment(self._task)
        self.notes += missing

    def close(self) -> None:
        """End all processes."""
        self._executor.close()
        if self._stock is not None:
            self._stock.close()

    def run(self, repeats: int) -> dict[str, Spread]:
        """Take every measurement ``repeats`` times, in turns."""
        measures: list[Measure] = [self.encoder]
        for name in self.backends:
            kinds = (self.simulator, self.acting, self.alone, self.busy)
            measures += [partial(measure, name) for measure in kinds]
        if self._stock is not None:
            self._plain = PlainAgent(self.agent, self._controllers[0])
            measures.append(self.plain)
        return interleaved(measures, repeats)

    def simulator(self, backend: str) -> dict[str, float]:
        """The simulator alone, with the recorded actions and without an agent."""
        actions = self._recorded[backend].actions
        timed = self._on_all(partial(_replay, self._task, backend, self.rows, actions))
        return {f"{backend} simulator": _rate(timed)}

    def encoder(self) -> dict[str, float]:
        """V alone, on prepared frames, in batches of one frame per row; and what it takes to make frames."""
        timed = self._on_all(partial(_encode, self.agent, self._observations, self._sizes.batches))
        return {
            "encoder": _rate([(frames, seconds) for frames, seconds, _ in timed]),
            "us frames": float(np.median([microseconds for *_, microseconds in timed])),
        }

    def acting(self, backend: str) -> dict[str, float]:
        """The whole agent in the loop that evolution and evaluation use."""
        timed = self._on_all(self._act(backend))
        rates = {f"{backend} acting": _rate([(one.steps, one.seconds) for one in timed])}
        for part in ("simulator", "policy", "loop"):
            seconds = sum(getattr(one, part) for one in timed)
            rates[f"{backend} us {part}"] = 1e6 * seconds / sum(one.steps for one in timed)
        return rates

    def alone(self, backend: str) -> dict[str, float]:
        """The same by one process, while the others do nothing."""
        nothing: list[Chunk[Any]] = [_nothing] * (self.processes - 1)
        one = next(iter(list(self._executor.map([self._act(backend), *nothing]))))
        return {f"{backend} alone": one.steps / one.seconds}

    def busy(self, backend: str) -> dict[str, float]:
        """The same by all, beside another process that never rests."""
        with busy_process():
            timed = self._on_all(self._act(backend))
        return {f"{backend} busy": _rate([(one.steps, one.seconds) for one in timed])}

    def plain(self) -> dict[str, float]:
        """The plain loop: one stock environment, frame by frame, with one thread; resets are not timed."""
        assert self._stock is not None
        seconds = 0.0
        with torch_threads(1):
            observation = self._fresh(0)
            for _ in range(3):
                self._plain.act(observation)
            self._plain.reset()
            for step in range(self._sizes.plain_steps):
                began = time.perf_counter()
                action = self._plain.act(observation)
                observation, _, terminated, truncated, _ = self._stock.step(action)
                seconds += time.perf_counter() - began
                if terminated or truncated:
                    observation = self._fresh(step)
        return {"plain": self._sizes.plain_steps / seconds}

    def _fresh(self, step: int) -> np.ndarray:
        assert self._stock is not None
        self._plain.reset()
        observation, _ = self._stock.reset(seed=_seeds(1)[0] + step)
        return np.asarray(observation)

    def _act(self, backend: str) -> "Chunk[_Timed]":
        return partial(_act, self.agent, backend, self._controllers, self.steps[backend])

    def _on_all(self, chunk: Chunk[Any]) -> list[Any]:
        """The results of one such chunk in each process."""
        return list(self._executor.map([chunk] * self.processes))

    def _steps(self, backend: str) -> int:
        slow = backend == self._task.reference_backend and len(self._task.backends) > 1
        return max(1, self._sizes.steps // 10) if slow else self._sizes.steps


@dataclass(frozen=True)
class _Recorded:
    """actions (steps, N, ...), raw observations (N, ...), and how many of the N rows ended early."""

    actions: np.ndarray
    observations: np.ndarray
    rows_ended: int


@dataclass(frozen=True)
class _Timed:
    """Steps of all rows of a process, and seconds: in all, in the simulator, in the policy and in the loop itself."""

    steps: int
    seconds: float
    simulator: float
    policy: float
    loop: float


def _rate(timed: Sequence[tuple[int, float]]) -> float:
    """Per second, of processes that worked side by side and were as fast as they are on average."""
    return sum(count for count, _ in timed) / float(np.mean([seconds for _, seconds in timed]))


def _seeds(count: int) -> list[int]:
    return episode_seeds("fitness", 1, count)


def _record(agent: Agent, backend: str, controllers: torch.Tensor, steps: int, environments: Environments) -> _Recorded:
    rows, recording = len(controllers), Recording()
    env = environments.of(agent.task, rows, backend)
    played = rollout(agent.task, env, agent.policy(rows, controllers), _seeds(rows), steps, observer=recording)
    ended = int((played.lengths < steps).sum())
    return _Recorded(np.array(recording.actions), recording.observations, ended)


def _replay(task: Task, backend: str, rows: int, actions: np.ndarray, environments: Environments) -> tuple[int, float]:
    env = environments.of(task, rows, backend)
    env.reset(seed=_seeds(rows))  # type: ignore[arg-type]
    began = time.perf_counter()
    steps = replayed_steps(env, actions)
    return steps, time.perf_counter() - began


def _encode(agent: Agent, raw: np.ndarray, batches: int, environments: Environments) -> tuple[int, float, float]:
    """Frames that were encoded, the seconds that this took, and the microseconds to make a frame of an observation."""
    frames = agent.task.frames(raw)
    seconds = seconds_of(lambda: agent.encode(frames), batches, 3, agent.device)
    framing = seconds_of(lambda: agent.task.frames(raw), batches, 3, torch.device("cpu"))
    return batches * len(frames), seconds, 1e6 * framing / batches / len(frames)


def _act(agent: Agent, backend: str, controllers: torch.Tensor, steps: int, environments: Environments) -> _Timed:
    rows = len(controllers)
    policy, env = Clocked(agent.policy(rows, controllers)), ClockedEnv(environments.of(agent.task, rows, backend))
    played = rollout(agent.task, env, policy, _seeds(rows), steps)
    seconds = time.perf_counter() - env.reset_at
    return _Timed(played.steps, seconds, env.seconds, policy.seconds, seconds - env.seconds - policy.seconds)


def _nothing(environments: Environments) -> None:
    """Occupies a process that is not measured."""


def nearby_controllers(agent: Agent, count: int) -> torch.Tensor:
    """Different controllers (count, P), all near the agent's own, as in a generation of its evolution."""
    controller = agent.controller.numpy()
    scale = 0.1 * float(controller.std()) or 0.05
    noise = np.random.default_rng(1).standard_normal((count, len(controller)))
    return torch.from_numpy((controller + scale * noise).astype(np.float32))


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    backends, dtype = result["backends"], result["machine"]["dtype"]
    table = SideBySide(f"acting in {result['task']}, {result['processes']} x {result['rows']} rows", list(backends))

    def row(name: str, text: Callable[[dict[str, Any]], str]) -> None:
        table.row(name, [text(figures) for figures in backends.values()])

    row("simulator alone", lambda one: rate(one["simulator_steps_per_s"]))
    row(f"encoder alone ({dtype}), frames", lambda one: rate(result["encoder_frames_per_s"]))
    row("bound: both in turn", lambda one: rate(one["bound_steps_per_s"]))
    row("acting: V, M and a C for each row", lambda one: rate(one["acting_steps_per_s"]))
    table.row("  lowest to highest", [extremes(spreads[f"{name} acting"]) for name in backends])
    row("  share of the bound", lambda one: f"{one['share_of_bound']:.0%}")
    row("acting beside a busy process", lambda one: rate(one["busy_steps_per_s"]))
    row("  of acting on a quiet machine", lambda one: f"{one['busy_share']:.0%}")
    row("acting, one process", lambda one: rate(one["alone_steps_per_s"]))
    row(f"  {result['processes']} processes, times one", lambda one: f"{one['scaling']:.2f}")
    table.section()
    for part in ("simulator", "policy", "loop"):
        row(f"microseconds a step: {part}", lambda one, part=part: rate(one["microseconds"][part]))  # type: ignore[misc]
    if result["speedup"] is not None:
        table.section()
        table.row("plain loop, one stock environment", [rate(result["plain_steps_per_s"])])
        table.row("acting, times the plain loop", [f"{result['speedup']:.1f}"])
    table.print(result, f"{result['agent']} agent")
