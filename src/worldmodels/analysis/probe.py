"""How much of a world's state can be read linearly off what V makes of its pictures.

Fresh episodes of the exploration policy; ridge regressions from mu, from the pixels themselves (what a linear map could
reach at most without V) and from nothing, each fitted, chosen and measured on different episodes.
"""

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.agent import encode_frames, load_agent
from worldmodels.analysis.linear import (
    Split,
    accuracy,
    areas_under_curves,
    constant,
    r_squared,
    read_off,
    split_by_group,
)
from worldmodels.analysis.probe_plot import probe_plot
from worldmodels.core.device import choose_device
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import write_bytes, write_json
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import episode_seeds
from worldmodels.execution.recover import retrying
from worldmodels.rollouts import rollout
from worldmodels.run.pipeline import Pipeline
from worldmodels.run.run import Run, read_config
from worldmodels.tasks import Task, get_task
from worldmodels.vision.conv_vae import ConvVAE

LEAST_EPISODES = 5
"""Fewer cannot be split into three parts."""
_BATCH = 256
SOURCES = ("latents", "pixels", "constant")
"""What the state is read off: mu of V, the picture itself, nothing."""


@dataclass(frozen=True)
class Seen:
    """frames: (n, 64, 64, 3) uint8; state: by name, (n, K), as :meth:`Task.state` gives it; episodes: (n,) numbers."""

    frames: np.ndarray
    state: Mapping[str, np.ndarray]
    episodes: np.ndarray


@dataclass(frozen=True)
class Row:
    """How well one component of a variable is read: R2, accuracy or AUC; component -1 is the mean of all that vary."""

    vision: str
    task: str
    variable: str
    component: int
    measure: str
    latents: float
    pixels: float
    constant: float


class _Witness:
    """Keeps every so many frames of every row, with the state of the world that they show."""

    def __init__(self, task: Task, env: VectorEnv, every: int) -> None:
        self._task, self._env, self._every = task, env, every
        self._age = np.zeros(env.num_envs, np.int64)
        self._kept: list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]] = []

    def start(self, observations: np.ndarray) -> None:
        """The first frames."""
        self._keep(np.arange(self._env.num_envs), observations)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, seen: np.ndarray
    ) -> None:
        """The frames after a step."""
        self._age[rows] += 1
        self._keep(rows, seen)

    def _keep(self, rows: np.ndarray, seen: np.ndarray) -> None:
        # Each row at moments of its own, so that every time of an episode is seen.
        now = (self._age[rows] + rows) % self._every == 0
        if now.any():
            state = {name: values[rows[now]].copy() for name, values in self._task.state(self._env).items()}
            self._kept.append((rows[now], np.array(self._task.frames(seen[now])), state))

    def seen(self, first: int) -> Seen:
        """All that was kept; ``first``: the number of the first row's episode."""
        rows, frames, states = zip(*self._kept, strict=True)
        state = {name: np.concatenate([one[name] for one in states]) for name in states[0]}
        columns = {name: values.reshape(len(values), -1) for name, values in state.items()}
        return Seen(np.concatenate(frames), columns, first + np.concatenate(rows))


def witness(task: Task, seed: int, episodes: int, per_episode: int, steps: int = 0) -> Seen:
    """About ``per_episode`` frames of each of some fresh episodes of at most ``steps`` (0: the task's limit)."""
    limit, backend = steps or task.max_steps, task.backends[0]
    seeds, parts = episode_seeds("probe", seed, episodes), []

    def play(chunk: Sequence[int], first: int) -> Seen:
        with contextlib.closing(task.make(len(chunk), backend)) as env:
            kept = _Witness(task, env, max(1, limit // per_episode))
            rollout(env, task.exploration(chunk), chunk, limit, observer=kept)
        return kept.seen(first)

    with Progress(episodes, "probe", "episodes") as bar:
        for first in range(0, episodes, task.lockstep):
            chunk = seeds[first : first + task.lockstep]
            parts.append(retrying(partial(play, chunk, first)))
            bar.advance(len(chunk))
    state = {name: np.concatenate([part.state[name] for part in parts]) for name in parts[0].state}
    return Seen(
        np.concatenate([part.frames for part in parts]), state, np.concatenate([part.episodes for part in parts])
    )


def load_vision(name: str, device: str) -> tuple[Task, ConvVAE]:
    """V of a run (which needs no more than its vision stage), of a saved agent or of a shipped one, and its task."""
    config = read_config(Path(name))
    if config is None:
        agent = load_agent(name, device)
        return agent.task, agent.vision
    pipeline = Pipeline(Run(Path(name), config), choose_device(device), config.rounds)
    return pipeline.task, pipeline.load_vision().eval()


def probe(names: Sequence[str], seed: int, episodes: int, per_episode: int, steps: int, device: str) -> dict[str, Any]:
    """Probe V of each of some runs or agents on the same number of fresh episodes; what :func:`write` takes.

    Of two worlds with the same rules, the episodes are the same too.
    """
    if len(set(names)) < len(names):
        raise UserError(f"expected runs or agents that differ, got {' '.join(names)}")
    visions = {name: load_vision(name, device) for name in names}
    worlds, baselines = dict[str, Seen](), dict[str, dict[str, dict[str, np.ndarray]]]()
    rows: list[Row] = []
    for name, (task, vision) in visions.items():
        if task.name not in worlds:
            worlds[task.name] = witness(get_task(task.name), seed, episodes, per_episode, steps)
        seen = worlds[task.name]
        split = split_by_group(seen.episodes)
        if task.name not in baselines:
            say(f"reading the state of {task.name} off {len(seen.frames):,} pictures")
            pixels = measures(seen.frames.reshape(len(seen.frames), -1), seen.state, split)
            baselines[task.name] = {"pixels": pixels, "constant": measures(None, seen.state, split)}
        latents = measures(_mu(vision, seen.frames), seen.state, split)
        rows += _rows(name, task.name, {"latents": latents} | baselines[task.name])
    counts = {name: {"frames": len(seen.frames), "episodes": episodes} for name, seen in worlds.items()}
    return {"seed": seed, "worlds": counts, "rows": [_plain(row) for row in rows]}


def _mu(vision: ConvVAE, frames: np.ndarray) -> np.ndarray:
    parts = [encode_frames(vision, frames[start : start + _BATCH])[0] for start in range(0, len(frames), _BATCH)]
    return np.concatenate([part.cpu().numpy() for part in parts])


def measures(features: np.ndarray | None, state: Mapping[str, np.ndarray], split: Split) -> dict[str, np.ndarray]:
    """How well each variable is read off features (n, F), or off nothing: (K,) by "variable/measure".

    R2 of quantities; accuracy and AUC of what is so or not; accuracy of which of several kinds it is.
    """
    targets = {name: _targets(values) for name, values in state.items()}
    together = np.concatenate(list(targets.values()), axis=1)
    predicted = constant(together, split) if features is None else read_off(features, together, split)
    found, column = {}, 0
    for name, values in state.items():
        width = targets[name].shape[1]
        told, column = predicted[:, column : column + width], column + width
        truth = values[split.measure]
        if values.dtype == np.bool_:
            found[f"{name}/accuracy"] = accuracy(told, truth)
            found[f"{name}/AUC"] = areas_under_curves(told, truth)
        elif values.dtype == np.int64:
            kinds = np.unique(values)
            found[f"{name}/accuracy"] = np.array([(kinds[told.argmax(axis=1)] == truth[:, 0]).mean()])
        else:
            found[f"{name}/R2"] = r_squared(told, truth)
    return found


def _targets(values: np.ndarray) -> np.ndarray:
    """What is predicted of a variable (n, K), as numbers; kinds one-hot."""
    if values.dtype != np.int64:
        return values.astype(np.float64)
    if values.shape[1] != 1:
        raise ValueError(f"expected kinds (n,), got {values.shape}; give each its own name")
    return np.asarray((values == np.unique(values)).astype(np.float64))


def _rows(vision: str, task: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> list[Row]:
    rows = []
    for key in found["latents"]:
        variable, measure = key.rsplit("/", 1)
        columns = [found[source][key] for source in SOURCES]
        varies = np.isfinite(columns[0])
        means = [float(one[varies].mean()) if varies.any() else float("nan") for one in columns]
        rows.append(Row(vision, task, variable, -1, measure, *means))
        if len(columns[0]) > 1:
            parts = enumerate(zip(*(one.tolist() for one in columns), strict=True))
            rows += [Row(vision, task, variable, component, measure, *values) for component, values in parts]
    return rows


def _plain(row: Row) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {key: None if value != value else value for key, value in asdict(row).items()}


def write(result: Mapping[str, Any], out: Path, json: Path | None) -> None:
    """``probe.csv`` and ``probe.png`` in the folder ``out``, all figures in the file ``json``, and a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(result["rows"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["rows"])
    write_bytes(out / "probe.csv", text.getvalue().encode())
    probe_plot(result["rows"], out / "probe.png")
    if json is not None:
        write_json(json, dict(result))
    _print(result["rows"])
    for task, counts in result["worlds"].items():
        say(f"{task}: {counts['frames']:,} frames of {counts['episodes']:,} fresh episodes, a fifth of which measure")
    say(f"every component: {out / 'probe.csv'}; picture: {out / 'probe.png'}")


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="read linearly off", title_justify="left")
    for column in ("variable", "measure", "V of"):
        table.add_column(column)
    for column in SOURCES:
        table.add_column(column, justify="right")
    means = [row for row in rows if row["component"] == -1]
    order = list(dict.fromkeys((row["variable"], row["measure"]) for row in means))
    for row in sorted(means, key=lambda row: order.index((row["variable"], row["measure"]))):
        numbers = ["" if row[source] is None else f"{row[source]:.3f}" for source in SOURCES]
        table.add_row(row["variable"], row["measure"], row["vision"], *numbers)
    Console().print(table)
