"""Importing what other programs made into a run: recordings as its episodes, a V as its trained V."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import save_tensors, tensors_digest
from worldmodels.core.metrics import MetricsLog
from worldmodels.core.progress import Progress
from worldmodels.core.terminal import duration
from worldmodels.data.collectors import IMPORTED
from worldmodels.data.completeness import missing_from
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.data.exchange.published_files import find_files
from worldmodels.data.exchange.published_weights import published_vision
from worldmodels.data.exchange.recordings import (
    MOST_STEPS,
    RENDERER,
    Recording,
    lacking,
    read_recording,
    scan,
)
from worldmodels.evolution.phases import phases_of_all_rounds
from worldmodels.execution.environments import Environments
from worldmodels.run.artifacts import FILES, ShardPlan
from worldmodels.run.config import Config
from worldmodels.run.experiments import opened
from worldmodels.run.pipeline import Pipeline, collected
from worldmodels.run.presets import task_of
from worldmodels.run.run import read_config
from worldmodels.tasks import Task

_SHARD_FRAMES = 16_384
"""Frames of a shard, about: few enough for the memory of every worker, many enough for files of a good size."""
_SHARD_EPISODES = 32


@dataclass(frozen=True)
class _Shards:
    """Stores recordings as the shards of a run's collect stage."""

    task: Task
    settings: RecordingConfig
    recordings: Sequence[Recording]
    plan: Sequence[ShardPlan]

    def part(self, index: int) -> Sequence[Recording]:
        """The recordings of shard ``index``."""
        first = sum(len(shard.seeds) for shard in self.plan[:index])
        return self.recordings[first : first + len(self.plan[index].seeds)]

    def chunk(self, directory: Path, index: int) -> Any:
        """The work of one shard, for an executor."""
        seeds = self.plan[index].seeds
        return partial(_store, EpisodeStore(directory), index, self.task, self.settings, self.part(index), seeds)


def _store(
    store: EpisodeStore,
    index: int,
    task: Task,
    settings: RecordingConfig,
    recordings: Sequence[Recording],
    seeds: Sequence[int],
    environments: Environments,
) -> int:
    """Read recordings and store them as a shard; returns the number of their frames."""
    episodes = []
    for recording, seed in zip(recordings, seeds, strict=True):
        interrupt.check()
        episodes.append(read_recording(recording, task, settings, seed))
    store.write(index, episodes)
    return sum(len(episode.frames) for episode in episodes)


def import_episodes(
    config: Config, directory: Path, source: Path, settings: RecordingConfig, executor: str = "auto"
) -> dict[str, Any]:
    """Make the recordings in ``source`` the finished collect stage of the run in ``directory``; returns its result.

    config: the settings of the run, of which those of the collect stage follow from the recordings. The same call
    continues an import that was interrupted. Raises :class:`UserError` for recordings that cannot be read, and for
    those that lack what the evolution of C needs.
    """
    task = task_of(config)
    recordings = scan(source, settings)
    config = _of_imported(config, task, source, recordings, settings)
    device = torch.device("cpu")
    with opened(config, directory, executor, device, create=True) as (run, workers):
        pipeline = Pipeline(run.artifacts(), device, workers)
        shards = _Shards(task, settings, recordings, pipeline.artifacts.plan())
        result = pipeline.fill("collect", partial(_work, pipeline, shards))
    for lack, head in (("rewards", "reward"), ("ends", "end")):
        if lack in config.collect.missing:
            say(f"{source} does not say anything of {lack}: M will have no {head} head")
    metrics = result["metrics"]
    amount = f"{metrics['episodes']:,.0f} episodes, {metrics['steps']:,.0f} steps"
    say(f"import: {duration(result['seconds'])}; {amount}; next: worldmodels train {config.task} --run {directory}")
    return result


def _of_imported(
    config: Config, task: Task, source: Path, recordings: Sequence[Recording], settings: RecordingConfig
) -> Config:
    """The settings of a run whose first episodes are these recordings."""
    missing = tuple(
        what
        for what in lacking(recordings, task, settings)
        if (task.predicts_reward if what == "rewards" else task.predicts_end)
    )
    if missing and any(phase.world == "dream" for _, phase in phases_of_all_rounds(config.evolution)):
        remedy = "choose a preset or --phases that evolve C in the real world alone"
        if missing == ("ends",):
            remedy = f"say what ended them (--ends world or --ends limit), or {remedy}"
        raise UserError(
            f"the files in {source} do not hold {' and '.join(missing)}, without which M's dreams, in which these "
            f"settings evolve C, cannot be dreamt; {remedy}"
        )
    files = [[item.path.name, *item.checksums] for item in recordings]
    digest = hashlib.sha256(json.dumps([files, asdict(settings)]).encode()).hexdigest()[:12]
    frames = sum(recording.frames for recording in recordings) // len(recordings)
    collect = replace(
        config.collect,
        episodes=len(recordings),
        reference_episodes=0,
        num_envs=max(1, min(_SHARD_EPISODES, _SHARD_FRAMES // frames)),
        steps=0,
        policy=IMPORTED + digest,
        missing=missing,
    )
    return replace(config, collect=collect)


def _work(pipeline: Pipeline, shards: _Shards, directory: Path, identity: str) -> Mapping[str, float]:
    """The work of the stage: store the shards that an earlier process has not stored."""
    store, plan, size = EpisodeStore(directory), shards.plan, shards.task.action_size
    for index, planned in enumerate(plan):
        path = store.shard_path(index)
        if os.path.lexists(path) and (problem := missing_from(path, planned.seeds, MOST_STEPS, RENDERER, size)):
            say(f"import: {path} is damaged ({problem}); importing it again")
            store.remove(index)
    left = [index for index in range(len(plan)) if not store.has(index)]
    done = sum(len(plan[index].seeds) for index in range(len(plan)) if store.has(index))
    with Progress(len(shards.recordings), "import", "episodes", done) as bar:
        chunks = [shards.chunk(directory, index) for index in left]
        for index, frames in zip(left, pipeline.executor.map(chunks), strict=True):
            bar.advance(len(plan[index].seeds), frames=float(frames))
        rate = bar.rate
    stored = [Shard(store.shard_path(index)) for index in range(len(plan))]
    columns = ("mean_return", "mean_length", "episodes_per_s")
    with contextlib.closing(MetricsLog(directory, columns)) as log:
        total = 0
        for shard in stored:
            total += len(shard.lengths)
            mean_return, mean_length = float(shard.returns().mean()), float(shard.lengths.mean())
            log.log(total, mean_return=mean_return, mean_length=mean_length, episodes_per_s=rate)
    return collected(stored)


def import_vision(directory: Path, folder: Path, task: Task) -> dict[str, Any]:
    """Make the published V in ``folder`` the finished vision stage of a run of ``task`` that has its episodes.

    Raises :class:`UserError` for a run of another task or with other settings of V, and for one that has another V.
    """
    config = read_config(directory)
    if config is None:
        raise UserError(
            f"{directory} is not a run: it has no run.json; collect or import episodes of {task.name} first"
        )
    vision = published_vision(find_files(folder).vae, task)
    wanted = {"task": task.name, "vision.model": vision.name, "vision.latent_size": vision.latent_size}
    given = {"task": config.task, "vision.model": config.vision.model, "vision.latent_size": config.vision.latent_size}
    for name, value in wanted.items():
        if given[name] != value:
            raise UserError(f"expected a run with {name} {value} for this V, {directory} has {given[name]}")
    device = torch.device("cpu")

    def work(stage: Path, identity: str) -> Mapping[str, float]:
        save_tensors(stage / FILES["vision"], vision.state_dict(), {})
        return {}

    with opened(config, directory, "local", device, create=False) as (run, workers):
        artifacts = run.artifacts()
        there = artifacts.vision(device) if artifacts.finished("vision") else vision
        if tensors_digest(there.state_dict()) != tensors_digest(vision.state_dict()):
            raise UserError(f"{directory} has another V already; import the episodes into a new run for this one")
        result = Pipeline(artifacts, device, workers).fill("vision", work)
    say(f"vision: V of {folder}; next: worldmodels train {task.name} --run {directory}")
    return result
