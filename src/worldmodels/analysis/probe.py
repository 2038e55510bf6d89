"""Linear probes of V: how well a linear map predicts the state of a world from V's latents of its frames.

The exploration policy plays new episodes. Ridge regression predicts their states from mu, from the pixels (how well a
linear map does without V) and from nothing; it is fitted, its penalty chosen and the result measured on different
episodes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.analysis.linear import (
    Split,
    accuracy,
    areas_under_curves,
    fitted_predictions,
    mean_predictions,
    split_by_group,
)
from worldmodels.analysis.probe_report import SOURCES, write
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.progress import Progress
from worldmodels.core.provenance import provenance
from worldmodels.core.ridge import r_squared
from worldmodels.core.seeds import episode_seeds
from worldmodels.core.tables import finite
from worldmodels.evaluation import longest
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, TellsState
from worldmodels.vision.base import Vision, encode_frames

__all__ = ["LEAST_EPISODES", "Samples", "probe", "sample", "scores", "write"]

LEAST_EPISODES = 5
"""The fewest episodes that can be split into three parts."""
_BATCH = 256
"""Frames encoded at a time."""


@dataclass(frozen=True)
class Samples:
    """n frames and the states that they show.

    frames: (n, 64, 64, 3) uint8; state: variables by name, (n, K), with the dtypes of :class:`TellsState`; episodes:
    (n,), the number of each frame's episode.
    """

    frames: np.ndarray
    state: Mapping[str, np.ndarray]
    episodes: np.ndarray


@dataclass(frozen=True)
class Row:
    """How well one component of a variable is predicted: R2, accuracy or AUC, as ``measure`` says.

    vision: the name of the V; component: its number, or -1 for the mean of all components that vary; latents, pixels,
    constant: the result with mu of V, the frame itself, or nothing as features.
    """

    vision: str
    task: str
    variable: str
    component: int
    measure: str
    latents: float
    pixels: float
    constant: float


def probe(
    visions: Mapping[str, tuple[Task, Vision]],
    seed: int,
    episodes: int,
    per_episode: int,
    steps: int,
    executor: Executor,
) -> dict[str, Any]:
    """Probe each of the named visions, given with its task; the result, for :func:`write`.

    About ``per_episode`` frames are taken from each of ``episodes`` new episodes of at most ``steps`` steps (0: the
    task's limit). Tasks that differ only in their pictures are probed in the same episodes. Raises :class:`UserError`
    for fewer than LEAST_EPISODES episodes and for a task that is no :class:`TellsState`.
    """
    if episodes < LEAST_EPISODES:
        raise UserError(f"expected at least {LEAST_EPISODES} episodes to fit, choose and measure, got {episodes}")
    for name, (task, _) in visions.items():
        if not isinstance(task, TellsState):
            raise UserError(
                f"cannot probe {name}: {task.name} does not tell its state; see TellsState in worldmodels.tasks.base"
            )
    samples, baselines = dict[str, Samples](), dict[str, dict[str, dict[str, np.ndarray]]]()
    rows: list[Row] = []
    for name, (task, vision) in visions.items():
        if task.name not in samples:
            samples[task.name] = sample(executor, task, seed, episodes, per_episode, steps)
        frames, state = samples[task.name].frames, samples[task.name].state
        split = split_by_group(samples[task.name].episodes)
        if task.name not in baselines:
            say(f"fitting linear maps to the state of {task.name} on {len(frames):,} frames")
            pixels = scores(frames.reshape(len(frames), -1), state, split)
            baselines[task.name] = {"pixels": pixels, "constant": scores(None, state, split)}
        latents = scores(_mu(vision, frames), state, split)
        rows += _rows(name, task.name, {"latents": latents} | baselines[task.name])
    tasks = {task.name: task for task, _ in visions.values()}
    counts = {
        name: {
            "frames": len(sampled.frames),
            "episodes": episodes,
            "backend": tasks[name].backends[0],
            "steps": longest(tasks[name], steps),
            "cut_short": longest(tasks[name], steps) < tasks[name].max_steps,
        }
        for name, sampled in samples.items()
    }
    device = next(next(iter(visions.values()))[1].parameters()).device
    modules = [module for task in tasks.values() for module in task.worlds[task.backends[0]].requires]
    return {
        "seed": seed,
        "worlds": counts,
        "device": device.type,
        "rows": [{name: finite(value) for name, value in asdict(row).items()} for row in rows],
        "made_with": provenance(device, modules),
    }


def sample(executor: Executor, task: Task, seed: int, episodes: int, per_episode: int, steps: int = 0) -> Samples:
    """About ``per_episode`` frames of each of ``episodes`` new episodes of at most ``steps`` steps (0: the limit)."""
    limit = longest(task, steps)
    every = max(1, limit // per_episode)
    seeds, parts = episode_seeds("probe", seed, episodes), list[Samples]()
    chunks = [
        partial(_play, task, seeds[first : first + task.num_envs], first, limit, every)
        for first in range(0, episodes, task.num_envs)
    ]
    with Progress(episodes, "probe", "episodes") as bar:
        for part in executor.map(chunks):
            parts.append(part)
            bar.advance(min(task.num_envs, episodes - bar.done))
    state = {name: np.concatenate([part.state[name] for part in parts]) for name in parts[0].state}
    frames, numbers = ([getattr(part, name) for part in parts] for name in ("frames", "episodes"))
    return Samples(np.concatenate(frames), state, np.concatenate(numbers))


def _play(task: Task, seeds: Sequence[int], first: int, limit: int, every: int, environments: Environments) -> Samples:
    """Samples of one episode per seed; ``first``: the number of the first episode."""
    env = environments.of(task, len(seeds), task.backends[0])
    sampler = _Sampler(task, env, every, first)
    rollout(task, env, task.exploration(seeds), seeds, limit, observer=sampler)
    return sampler.samples()


class _Sampler:
    """An observer that keeps every ``every``-th frame of each row, with the state of the world that it shows.

    first: the number of the first row's episode.
    """

    def __init__(self, task: Task, env: VectorEnv, every: int, first: int) -> None:
        assert isinstance(task, TellsState)
        self._task: TellsState = task
        self._shows_end = task.shows_end
        self._env, self._every = env, every
        self._age, self._episodes = np.zeros(env.num_envs, np.int64), first + np.arange(env.num_envs)
        self._kept: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []

    def start(self, observations: Observations) -> None:
        self._keep(np.arange(self._env.num_envs), observations)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        self._age[rows] += 1
        if not self._shows_end:
            rows, after = rows[~ended], after.of(~ended)
        self._keep(rows, after)

    def _keep(self, rows: np.ndarray, observations: Observations) -> None:
        # Episodes are sampled at different steps, so that every step of an episode occurs among the samples.
        now = (self._age[rows] + self._episodes[rows]) % self._every == 0
        if now.any():
            state = {name: values[rows[now]].copy() for name, values in self._task.state(self._env).items()}
            self._kept.append((self._episodes[rows[now]], np.array(observations.of(now).frames), state))

    def samples(self) -> Samples:
        """All frames and states that were kept."""
        episodes, frames, states = zip(*self._kept, strict=True)
        state = {name: np.concatenate([part[name] for part in states]) for name in states[0]}
        columns = {name: values.reshape(len(values), -1) for name, values in state.items()}
        return Samples(np.concatenate(frames), columns, np.concatenate(episodes))


def _mu(vision: Vision, frames: np.ndarray) -> np.ndarray:
    parts = [encode_frames(vision, frames[start : start + _BATCH])[0] for start in range(0, len(frames), _BATCH)]
    return np.concatenate([part.cpu().numpy() for part in parts])


def scores(features: np.ndarray | None, state: Mapping[str, np.ndarray], split: Split) -> dict[str, np.ndarray]:
    """How well each variable is predicted from features (n, F), or from nothing: (K,) by "variable/measure".

    R2 for quantities (float64), accuracy and AUC for properties (bool), accuracy for categories (int64).
    """
    targets = {name: _targets(values) for name, values in state.items()}
    together = np.concatenate(list(targets.values()), axis=1)
    predicted = mean_predictions(together, split) if features is None else fitted_predictions(features, together, split)
    results, column = dict[str, np.ndarray](), 0
    for name, values in state.items():
        width = targets[name].shape[1]
        own, column = predicted[:, column : column + width], column + width
        truth = values[split.measure]
        if values.dtype == np.bool_:
            results[f"{name}/accuracy"] = accuracy(own, truth)
            results[f"{name}/AUC"] = areas_under_curves(own, truth)
        elif values.dtype == np.int64:
            categories = np.unique(values)
            results[f"{name}/accuracy"] = np.array([(categories[own.argmax(axis=1)] == truth[:, 0]).mean()])
        else:
            results[f"{name}/R2"] = r_squared(own, truth)
    return results


def _targets(values: np.ndarray) -> np.ndarray:
    """The targets (n, ...) float64 that stand for a variable (n, K): categories are one-hot."""
    if values.dtype != np.int64:
        return values.astype(np.float64)
    if values.shape[1] != 1:
        raise ValueError(f"expected one category per state, got {values.shape}; give each category its own name")
    return np.asarray((values == np.unique(values)).astype(np.float64))


def _rows(vision: str, task: str, results: Mapping[str, Mapping[str, np.ndarray]]) -> list[Row]:
    """The rows of one V; results: of :func:`scores`, by source."""
    rows = []
    for key in results["latents"]:
        variable, measure = key.rsplit("/", 1)
        columns = [results[source][key] for source in SOURCES]
        varies = np.isfinite(columns[0])
        means = [float(column[varies].mean()) if varies.any() else float("nan") for column in columns]
        rows.append(Row(vision, task, variable, -1, measure, *means))
        if len(columns[0]) > 1:
            parts = enumerate(zip(*(column.tolist() for column in columns), strict=True))
            rows += [Row(vision, task, variable, component, measure, *values) for component, values in parts]
    return rows
