"""Acting: the simulator alone, the encoder alone, the bound they set, the whole agent, and the plain loop.

Everything drives the same tracks with the same actions: what the agent does in its first rollout is recorded and
replayed in the simulator alone. Only real steps count; a row that has ended is neither stepped nor counted.
"""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv

from worldmodels.agent import Agent
from worldmodels.bench.clocked import Clocked, ClockedEnv
from worldmodels.bench.measure import Spread, agent_for, busy_note, interleaved, machine, seconds_of
from worldmodels.bench.plain import PlainAgent, torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task


@dataclass(frozen=True)
class Sizes:
    """How much one measurement does."""

    environments: int = 128
    """Environments in lockstep: a generation of the standard preset (32 candidates on 4 tracks)."""
    steps: int = 250
    """Lockstep steps: the episodes of that preset's first generation."""
    batches: int = 100
    """Batches that the encoder alone encodes."""
    plain_steps: int = 300
    """Steps of the plain loop."""


SIZES = Sizes()

_PARTS = {
    "simulator_alone": "ms per lockstep: simulator alone",
    "simulator_within": "  within acting",
    "encoder_alone": "ms per lockstep: encoder alone",
    "policy_within": "  the policy within acting",
    "frames": "  of it observations to frames",
    "memory_and_controllers": "  of it M, C and the rest",
    "loop": "ms per lockstep: the loop itself",
}


def bench(task: Task, repeats: int, steps: int | None = None) -> dict[str, Any]:
    """Measure with ``steps`` lockstep steps a time (None: 250), print a table and return the figures."""
    agent = agent_for(task)
    about = machine(agent.device)
    measured = _Acting(agent, replace(SIZES, steps=steps or SIZES.steps))
    notes = measured.notes + busy_note(about["load"], about["cores"])
    spreads = measured.run(repeats)
    result = figures(spreads, measured.sizes.environments)
    detail = {name: spread.to_json() for name, spread in spreads.items()}
    result |= {
        "what": "acting",
        "task": task.name,
        "agent": "untrained" if agent.info.get("untrained") else "shipped",
        "backend": measured.backend,
        "environments": measured.sizes.environments,
        "steps": measured.sizes.steps,
        "rows_ended": measured.rows_ended,
        "repeats": {"count": repeats} | detail,
        "machine": about,
        "notes": notes,
    }
    _print(result, spreads)
    return result


def figures(spreads: Mapping[str, Spread], environments: int) -> dict[str, Any]:
    """The figures that count, from the medians of what was measured; the plain loop may be missing."""
    median = {name: spread.median for name, spread in spreads.items()}
    simulator, encoder = median["env_steps_per_s"], median["encoder_frames_per_s"]
    acting, plain = median["acting_steps_per_s"], median.get("plain_steps_per_s")
    # Both use every core, so their times add up: nothing that simulates and encodes each frame can be faster.
    bound = 1 / (1 / simulator + 1 / encoder)
    encoding, framing = 1e3 * environments / encoder, median["ms_frames"]
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
        # What the bound counts is alone; what acting takes is within it.
        "milliseconds_per_lockstep": {
            "simulator_alone": 1e3 * environments / simulator,
            "simulator_within": median["ms_simulator"],
            "encoder_alone": encoding,
            "policy_within": median["ms_policy"],
            "frames": framing,
            "memory_and_controllers": median["ms_policy"] - encoding - framing,
            "loop": median["ms_loop"],
        },
    }


class _Acting:
    """The measurements, after one rollout that is not counted: it warms up and records what to replay."""

    def __init__(self, agent: Agent, sizes: Sizes) -> None:
        self.agent, self.notes = agent, list[str]()
        self.backend, self.sizes = self._choose(sizes)
        self._seeds = episode_seeds("fitness", 1, self.sizes.environments)
        self._controllers = _controllers(agent, self.sizes.environments)
        self._recorded = Clocked(agent.policy(self.sizes.environments, self._controllers), keep=True)
        with self._environments() as env:
            played = rollout(env, self._recorded, self._seeds, self.sizes.steps)
        self._actions = self._recorded.actions
        self.rows_ended = int((played.lengths < self.sizes.steps).sum())
        self._stock = self._stock_environment()

    def run(self, repeats: int) -> dict[str, Spread]:
        """Everything ``repeats`` times, in turns."""
        measures = [self.simulator, self.encoder, self.acting, self.frames]
        if self._stock is None:
            return interleaved(measures, repeats)
        self._plain = PlainAgent(self.agent, self._controllers[0])
        with contextlib.closing(self._stock):
            return interleaved([*measures, self.plain], repeats)

    def simulator(self) -> dict[str, float]:
        """The recorded actions without anybody who looks or thinks."""
        with self._environments() as env:
            env.reset(seed=self._seeds)  # type: ignore[arg-type]
            alive, steps = np.ones(env.num_envs, dtype=bool), 0
            began = time.perf_counter()
            for actions in self._actions:
                steps += int(alive.sum())
                _, _, ended, cut, _ = env.step(actions)
                alive &= ~(ended | cut)
            return {"env_steps_per_s": steps / (time.perf_counter() - began)}

    def encoder(self) -> dict[str, float]:
        """V on frames that lie ready, in the batch of the lockstep."""
        frames = self.agent.task.frames(self._recorded.observations)
        seconds = seconds_of(lambda: self.agent.encode(frames), self.sizes.batches, 3, self.agent.device)
        return {"encoder_frames_per_s": self.sizes.batches * len(frames) / seconds}

    def frames(self) -> dict[str, float]:
        """Observations to frames, which belongs to acting but not to the bound."""
        seen, times = self._recorded.observations, self.sizes.batches
        seconds = seconds_of(lambda: self.agent.task.frames(seen), times, 3, torch.device("cpu"))
        return {"ms_frames": 1e3 * seconds / times}

    def acting(self) -> dict[str, float]:
        """The whole agent in the loop that evolution and evaluation use."""
        # Outside the clock: the threads of the last measurement go to sleep, those of this one wake up.
        warm = self.agent.policy(self.sizes.environments, self._controllers)
        seconds_of(lambda: warm.act(self._recorded.observations), 1, 1, self.agent.device)
        began = time.perf_counter()
        policy = Clocked(self.agent.policy(self.sizes.environments, self._controllers))
        with self._environments() as env:
            clocked = ClockedEnv(env)
            played = rollout(clocked, policy, self._seeds, self.sizes.steps)
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
        """One stock environment, one frame at a time, one thread; resets are not counted."""
        assert self._stock is not None
        seconds, steps = 0.0, 0
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
                steps += 1
                if terminated or truncated:
                    observation = self._fresh(step)
        return {"plain_steps_per_s": steps / seconds}

    def _fresh(self, step: int) -> np.ndarray:
        assert self._stock is not None
        self._plain.reset()
        observation, _ = self._stock.reset(seed=self._seeds[0] + step)
        return np.asarray(observation)

    def _environments(self) -> contextlib.closing[VectorEnv]:
        return contextlib.closing(self.agent.task.make(self.sizes.environments, self.backend))

    def _choose(self, sizes: Sizes) -> tuple[str, Sizes]:
        """The fastest backend that works here, with fewer steps on a slow one."""
        task = self.agent.task
        for backend in task.backends:
            try:
                task.make(1, backend).close()
            except UserError as error:
                if backend == task.backends[-1]:
                    raise
                self.notes.append(f"{error}; measured on {task.backends[-1]} instead")
                sizes = replace(sizes, steps=max(1, sizes.steps // 10))
                continue
            return backend, sizes
        raise UserError(f"{task.name} has no backend to measure")

    def _stock_environment(self) -> "gymnasium.Env[np.ndarray, np.ndarray] | None":
        try:
            return gymnasium.make(self.agent.task.gymnasium_id, **self.agent.task.gymnasium_options)
        except (gymnasium.error.Error, ImportError) as error:
            reason = " ".join(str(error).split())
            self.notes.append(f"no plain loop: {self.agent.task.gymnasium_id} cannot be made here ({reason})")
            return None


def _controllers(agent: Agent, count: int) -> torch.Tensor:
    """Different controllers (count, P), all near the agent's own, as in a generation of its evolution.

    Those of an untrained agent steer to one side: they circle, so that no car leaves the field while it is measured.
    """
    stream = np.random.default_rng(1)
    controller = agent.controller.numpy()
    untrained = bool(agent.info.get("untrained"))
    scale = 0.05 if untrained else 0.1 * controller.std()
    candidates = controller + scale * stream.standard_normal((count, len(controller)))
    if untrained:
        candidates[:, 0] += stream.choice([-0.5, 0.5], count)
    return torch.from_numpy(candidates.astype(np.float32))


def _print(result: dict[str, Any], spreads: Mapping[str, Spread]) -> None:
    from rich.console import Console
    from rich.table import Table

    count, about = result["environments"], result["machine"]
    table = Table(title=f"acting in {result['task']}", title_justify="left")
    table.add_column("measured")
    for column in ("per second", "lowest", "highest"):
        table.add_column(column, justify="right")

    def row(name: str, key: str) -> None:
        if key in spreads:
            low, high = min(spreads[key].values), max(spreads[key].values)
            table.add_row(name, f"{result[key]:,.0f}", f"{low:,.0f}", f"{high:,.0f}")

    row(f"simulator alone ({result['backend']}, {count} environments), steps", "env_steps_per_s")
    row(f"encoder alone (batches of {count}, {about['dtype']}), frames", "encoder_frames_per_s")
    table.add_row("the bound they set, steps", f"{result['bound_steps_per_s']:,.0f}", "", "")
    row("acting (V+M+C, a controller each), steps", "acting_steps_per_s")
    row("acting with making and resetting the environments, steps", "acting_with_reset_steps_per_s")
    row("plain loop (one stock environment, one thread), steps", "plain_steps_per_s")
    table.add_section()
    table.add_row("share of the bound", f"{result['share_of_bound']:.1%}", "", "")
    if result["speedup"] is not None:
        table.add_row("times the plain loop", f"{result['speedup']:.1f}", "", "")
    table.add_section()
    for name, text in _PARTS.items():
        table.add_row(text, f"{result['milliseconds_per_lockstep'][name]:.2f}", "", "")
    lines = [f"{about['cpu']}, {about['cores']} cores, {about['gpu'] or 'no GPU'}; {result['agent']} agent"]
    table.caption = "\n".join(lines + result["notes"])
    Console().print(table)
