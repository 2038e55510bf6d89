"""Read-only access to a run: the status of its stages, metrics, episodes, latents, V, the agent and scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.agent import Agent
from worldmodels.core.device import choose_device
from worldmodels.core.errors import UserError
from worldmodels.core.files import read_json
from worldmodels.core.metrics import read_metrics
from worldmodels.core.storage.mirror import Mirror
from worldmodels.core.storage.place import is_url, plain_path
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.config import Config
from worldmodels.run.names import FOLDERS, stages_of
from worldmodels.run.run import read_config
from worldmodels.vision.base import Vision


@dataclass(frozen=True)
class StageStatus:
    """The status of a stage. state: "finished", "begun" or "waiting"; seconds, metrics: of a finished stage only.

    taken_over_from: the run from which a finished stage was taken over, None if this run did it itself.
    """

    round: int
    name: str
    state: str
    seconds: float | None
    metrics: dict[str, float]
    taken_over_from: str | None = None


class RunReader:
    """Reads a run, finished or not, which another process may be running. Takes no lock and writes nothing.

    The run may be at a URL (s3://, gs://, az://, https://); its files, except frames, are then copied to the cache.

    Raises :class:`UserError` if there is no run, and if the result of a stage is asked for that is not finished.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Mirror.reading(str(directory)).folder if is_url(directory) else plain_path(directory)
        config = read_config(self.directory)
        if config is None:
            raise UserError(f"{directory} is not a run: it has no run.json")
        self.config: Config = config

    def __repr__(self) -> str:
        config, stages = self.config, self.stages()
        finished = sum(stage.state == "finished" for stage in stages)
        settings = f"task={config.task!r}, preset={config.preset!r}, seed={config.seed}"
        return f"RunReader({str(self.directory)!r}, {settings}, {finished} of {len(stages)} stages finished)"

    @property
    def rounds(self) -> int:
        """Number of rounds that have begun, at least 1."""
        numbers = [path.name.removeprefix("round-") for path in self.directory.glob("round-*")]
        return max((int(number) for number in numbers if number.isdigit()), default=1)

    def artifacts(self, round_number: int | None = None) -> Artifacts:
        """The artefacts of a round (None: the last one that has begun)."""
        return Artifacts(self.directory, self.config, round_number or self.rounds)

    def stages(self) -> list[StageStatus]:
        """Every stage of every round, in order."""
        stages = []
        for number in range(1, max(self.rounds, self.config.rounds) + 1):
            stages += [self._status(number, name) for name in stages_of(number, self.config.rounds)]
        return stages

    def _status(self, number: int, name: str) -> StageStatus:
        stage = self.artifacts(number).stage(name)
        directory = stage.directory
        try:
            done = stage.done()
            origin = done.get("taken_over_from")
            return StageStatus(number, name, "finished", float(done["seconds"]), dict(done["metrics"]), origin)
        except UserError:
            # Checked after reading: a process that continues the stage may have removed the file in between.
            if (directory / "done.json").exists():
                raise
        return StageStatus(number, name, "begun" if (directory / "begun.json").exists() else "waiting", None, {})

    def metrics(self, stage: str, round_number: int | None = None) -> dict[str, np.ndarray]:
        """The metrics of a stage: columns (R,) float64 by name, NaN for empty cells; an unknown stage is a UserError.

        stage: its name ("vision"), or for a phase of evolution with the phase's folder ("controller/1-real").
        """
        name, _, phase = stage.partition("/")
        if name not in FOLDERS:
            raise UserError(f"unknown stage {name!r}; choose from {', '.join(FOLDERS)}")
        return read_metrics(self.artifacts(round_number).stage(name).directory / phase / "metrics.csv")

    def metric_names(self, round_number: int | None = None) -> list[str]:
        """The names for which :meth:`metrics` has a table so far: "vision", "controller/1-real" ..."""
        artifacts, names = self.artifacts(round_number), []
        for stage in FOLDERS:
            directory = artifacts.stage(stage).directory
            for path in sorted([*directory.glob("metrics.csv"), *directory.glob("*/metrics.csv")]):
                names.append(stage if path.parent == directory else f"{stage}/{path.parent.name}")
        return names

    def shards(self) -> list[Shard]:
        """The shards of episodes of all rounds that are complete so far."""
        shards = []
        for number in range(1, self.rounds + 1):
            store = EpisodeStore(self.artifacts(number).stage("collect").directory)
            shards += [Shard(path) for path in store.paths()]
        return shards

    def episodes(self) -> Iterator[Episode]:
        """Every recorded episode of all rounds, loaded one at a time."""
        for shard in self.shards():
            yield from shard.episodes()

    def episode(self, index: int) -> Episode:
        """One recorded episode, numbered from 0 over all rounds; -1 is the last one. UserError if there is none."""
        shards = self.shards()
        count = sum(len(shard.lengths) for shard in shards)
        place = index + count if index < 0 else index
        for shard in shards if place >= 0 else ():
            if place < len(shard.lengths):
                return shard.episode(place)
            place -= len(shard.lengths)
        raise UserError(f"there is no episode {index}; {self.directory} has {count} so far")

    @property
    def episode_count(self) -> int:
        """Number of episodes of all rounds that are recorded so far."""
        return sum(len(shard.lengths) for shard in self.shards())

    def returns(self) -> np.ndarray:
        """The return of every recorded episode of all rounds, (E,) float64."""
        return np.concatenate([np.zeros(0), *(shard.returns() for shard in self.shards())])

    def latents(self) -> Latents:
        """The encoded episodes of the last round that has finished encoding."""
        return self._last("encode").latents()

    def vision(self, device: str = "cpu") -> Vision:
        """The V of the last round that has finished the stage vision."""
        return self._last("vision").vision(choose_device(device))

    def memory(self, device: str = "cpu") -> MDNRNN:
        """The M of the last round that has finished the stage memory."""
        return self._last("memory").memory(choose_device(device))

    def agent(self, device: str = "cpu") -> Agent:
        """The agent of the last round that has finished the stage controller."""
        return self._last("controller").agent(choose_device(device))

    def evaluation(self) -> dict[str, Any]:
        """The scores of the last finished evaluation, as :func:`worldmodels.evaluation.report` returns them."""
        return self._last("evaluate").evaluation()

    def summary(self) -> dict[str, Any]:
        """``summary.json`` of a finished run."""
        content: dict[str, Any] = read_json(self.directory / "summary.json")
        return content

    def _last(self, stage: str) -> Artifacts:
        for number in range(self.rounds, 0, -1):
            if self.artifacts(number).finished(stage):
                return self.artifacts(number)
        first = self.artifacts(1)
        raise UserError(f"the {stage} stage of {self.directory} is not finished; run: {first.command(stage)}")
