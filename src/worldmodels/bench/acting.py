"""The speed of acting: the simulator alone, the encoder alone, the bound that follows, the agent, and the plain loop.

The agent and the simulator alone are measured in the same episodes with the same actions: those of the agent's first
rollout are recorded and replayed in the simulator. A row that has ended is neither stepped nor counted.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from worldmodels.agent import Agent
from worldmodels.bench.clocked import Clocked, ClockedEnv, Recording, replayed_steps
from worldmodels.bench.machine import machine, notes
from worldmodels.bench.measure import (
    Spread,
    agent_for,
    fastest_backend,
    interleaved,
    kind_of,
    seconds_of,
    stock_environment,
)
from worldmodels.bench.plain import PlainAgent
from worldmodels.bench.table import Save, SpeedTable
from worldmodels.core.device import torch_threads
from worldmodels.core.seeds import episode_seeds
from worldmodels.execution.environments import make_envs
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations


@dataclass(frozen=True)
class Sizes:
    """The size of one measurement."""

    num_envs: int = 128
    """Environments that run together, as for a generation of 32 candidates on 4 episodes; at most the task's limit."""
    steps: int = 250
    """Steps of every environment; a tenth of them on a backend that replaces a faster one that is missing."""
    batches: int = 100
    """Batches that are encoded in the measurement of the encoder alone."""
    plain_steps: int = 300
    """Steps of the plain loop."""


SIZES = Sizes()

_PARTS = {
    "simulator_alone": "ms per step of all environments: simulator alone",
    "simulator_within": "  simulator within acting",
    "encoder_alone": "ms per step of all environments: encoder alone",
    "policy_within": "  policy within acting",
    "frames": "    of which observations to frames",
    "memory_and_controllers": "    of which M, C and the rest",
    "loop": "ms per step of all environments: the loop itself",
}


def bench(task: Task, repeats: int, steps: int | None = None, save: Save | None = None) -> dict[str, Any]:
    """Measure, save, print and return the figures; steps: of every environment in one measurement (None: 250)."""
    agent = agent_for(task)
    about = machine(agent.device, task)
    measured = _Acting(agent, replace(SIZES, steps=steps or SIZES.steps))
    spreads = measured.run(repeats)
    result = figures(spreads, measured.sizes.num_envs)
    result |= {
        "what": "acting",
        "task": task.name,
        "agent": kind_of(agent),
        "backend": measured.backend,
        "num_envs": measured.sizes.num_envs,
        "steps": measured.sizes.steps,
        "rows_ended": measured.rows_ended,
        "repeats": {"count": repeats} | {name: spread.to_json() for name, spread in spreads.items()},
        "machine": about,
        "notes": measured.notes + notes(about),
    }
    if save is not None:
        save(result)
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], num_envs: int) -> dict[str, Any]:
    """The main figures, from the medians of the measurements; the plain loop may be missing."""
    median = {name: spread.median for name, spread in spreads.items()}
    simulator, encoder = median["env_steps_per_s"], median["encoder_frames_per_s"]
    acting, plain = median["acting_steps_per_s"], median.get("plain_steps_per_s")
    # Both use every core, so their times add up: nothing that simulates and encodes each frame can be faster.
    bound = 1 / (1 / simulator + 1 / encoder)
    encoding, framing = 1e3 * num_envs / encoder, median["ms_frames"]
    return {
        "env_steps_per_s": simulator,
        "encoder_frames_per_s": encoder,
        "bound_steps_per_s": bound,
        "acting_steps_per_s": acting,
        "share_of_bound": acting / bound,
        "plain_steps_per_s": plain,
        "speedup": acting / plain if plain else None,
        "acting_with_reset_steps_per_s": median["acting_with_reset_steps_per_s"],
        "reset_seconds": median["reset_seconds"],
        # alone: measured separately, as the bound counts it; within: measured during acting.
        "milliseconds_per_step_of_all": {
            "simulator_alone": 1e3 * num_envs / simulator,
            "simulator_within": median["ms_simulator"],
            "encoder_alone": encoding,
            "policy_within": median["ms_policy"],
            "frames": framing,
            "memory_and_controllers": median["ms_policy"] - encoding - framing,
            "loop": median["ms_loop"],
        },
    }


class _Acting:
    """The measurements. Before them, one rollout that is not timed warms up and records the actions to replay."""

    def __init__(self, agent: Agent, sizes: Sizes) -> None:
        self.agent, self._task = agent, agent.task
        self.backend, self.notes = fastest_backend(self._task)
        steps = sizes.steps
        if self.notes and self.backend == self._task.reference_backend:
            steps = max(1, steps // 10)
            self.notes.append(f"{steps} steps of every environment instead of {sizes.steps} on this slower backend")
        self.sizes = replace(sizes, num_envs=min(sizes.num_envs, self._task.max_envs), steps=steps)
        self._seeds = episode_seeds("fitness", 1, self.sizes.num_envs)
        self._controllers = _controllers(agent, self.sizes.num_envs)
        self._recording = Recording()
        with self._environments() as env:
            policy = agent.policy(self.sizes.num_envs, self._controllers)
            played = rollout(self._task, env, policy, self._seeds, steps, observer=self._recording)
        self.rows_ended = int((played.lengths < steps).sum())
        self._stock, missing = stock_environment(self._task)
        self.notes += missing

    def run(self, repeats: int) -> dict[str, Spread]:
        """Take every measurement ``repeats`` times, in turns."""
        measures = [self.simulator, self.encoder, self.acting, self.frames]
        if self._stock is None:
            return interleaved(measures, repeats)
        self._plain = PlainAgent(self.agent, self._controllers[0])
        with contextlib.closing(self._stock):
            return interleaved([*measures, self.plain], repeats)

    def simulator(self) -> dict[str, float]:
        """The simulator alone, with the recorded actions and without an agent."""
        with self._environments() as env:
            env.reset(seed=self._seeds)  # type: ignore[arg-type]
            began = time.perf_counter()
            steps = replayed_steps(env, self._recording.actions)
            return {"env_steps_per_s": steps / (time.perf_counter() - began)}

    def encoder(self) -> dict[str, float]:
        """V alone, on prepared frames, in batches of one frame per environment."""
        frames = self._task.frames(self._recording.observations)
        seconds = seconds_of(lambda: self.agent.encode(frames), self.sizes.batches, 3, self.agent.device)
        return {"encoder_frames_per_s": self.sizes.batches * len(frames) / seconds}

    def frames(self) -> dict[str, float]:
        """Turning observations into frames, which is part of acting but not of the bound."""
        raw, times = self._recording.observations, self.sizes.batches
        seconds = seconds_of(lambda: self._task.frames(raw), times, 3, torch.device("cpu"))
        return {"ms_frames": 1e3 * seconds / times}

    def acting(self) -> dict[str, float]:
        """The whole agent in the loop that evolution and evaluation use."""
        # Not timed: meanwhile the threads of the last measurement go to sleep and those of this one wake up.
        warmup, rows = self.agent.policy(self.sizes.num_envs, self._controllers), np.arange(self.sizes.num_envs)
        observations = Observations(self._task, self._recording.observations)
        seconds_of(lambda: warmup.act(observations, rows), 1, 1, self.agent.device)
        began = time.perf_counter()
        policy = Clocked(self.agent.policy(self.sizes.num_envs, self._controllers))
        with self._environments() as env:
            clocked = ClockedEnv(env)
            played = rollout(self._task, clocked, policy, self._seeds, self.sizes.steps)
            ended = time.perf_counter()
        rounds, seconds = policy.calls, ended - clocked.reset_at
        return {
            "acting_steps_per_s": played.steps / seconds,
            "acting_with_reset_steps_per_s": played.steps / (ended - began),
            "reset_seconds": clocked.reset_at - began,
            "ms_simulator": 1e3 * clocked.seconds / rounds,
            "ms_policy": 1e3 * policy.seconds / rounds,
            "ms_loop": 1e3 * (seconds - clocked.seconds - policy.seconds) / rounds,
        }

    def plain(self) -> dict[str, float]:
        """The plain loop: one stock environment, frame by frame, with one thread; resets are not timed."""
        assert self._stock is not None
        seconds = 0.0
        with torch_threads(1):
            observation = self._fresh(0)
            for _ in range(3):
                self._plain.act(observation)
            self._plain.reset()
            for step in range(self.sizes.plain_steps):
                began = time.perf_counter()
                action = self._plain.act(observation)
                observation, _, terminated, truncated, _ = self._stock.step(action)
                seconds += time.perf_counter() - began
                if terminated or truncated:
                    observation = self._fresh(step)
        return {"plain_steps_per_s": self.sizes.plain_steps / seconds}

    def _fresh(self, step: int) -> np.ndarray:
        assert self._stock is not None
        self._plain.reset()
        observation, _ = self._stock.reset(seed=self._seeds[0] + step)
        return np.asarray(observation)

    def _environments(self) -> contextlib.closing[VectorEnv]:
        return contextlib.closing(make_envs(self._task, self.sizes.num_envs, self.backend))


def _controllers(agent: Agent, count: int) -> torch.Tensor:
    """Different controllers (count, P), all near the agent's own, as in a generation of its evolution."""
    controller = agent.controller.numpy()
    scale = 0.1 * float(controller.std()) or 0.05
    noise = np.random.default_rng(1).standard_normal((count, len(controller)))
    return torch.from_numpy((controller + scale * noise).astype(np.float32))


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    count, dtype = result["num_envs"], result["machine"]["dtype"]
    table = SpeedTable(f"acting in {result['task']}", spreads)
    table.rate(f"simulator alone ({result['backend']}, {count} environments), steps", "env_steps_per_s")
    table.rate(f"encoder alone (batches of {count}, {dtype}), frames", "encoder_frames_per_s")
    table.figure("bound: simulator and encoder in turn, steps", f"{result['bound_steps_per_s']:,.0f}")
    table.rate("acting (V+M+C, a controller each), steps", "acting_steps_per_s")
    table.rate("acting with making and resetting the environments, steps", "acting_with_reset_steps_per_s")
    table.rate("plain loop (one stock environment, one thread), steps", "plain_steps_per_s")
    table.section()
    table.figure("share of the bound", f"{result['share_of_bound']:.1%}")
    if result["speedup"] is not None:
        table.figure("times the plain loop", f"{result['speedup']:.1f}")
    table.section()
    for name, text in _PARTS.items():
        table.figure(text, f"{result['milliseconds_per_step_of_all'][name]:.2f}")
    table.print(result, f"{result['agent']} agent")
