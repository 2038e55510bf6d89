"""The artefacts of a run's stages: their paths and digests, and loading those that are finished. Nothing is written."""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldmodels.agent import AGENT_FILE, Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, read_json
from worldmodels.core.provenance import provenance
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.latents import latents_path, load_latents
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.run.config import Config, later_round
from worldmodels.run.names import FOLDERS
from worldmodels.run.presets import task_of
from worldmodels.run.stage import Stage
from worldmodels.run.variants import hidden_of, inputs_of
from worldmodels.tasks import Task
from worldmodels.vision.base import Vision, make_vision

FILES = {
    "vision": "vision.safetensors",
    "memory": "memory.safetensors",
    "controller": AGENT_FILE,
    "evaluate": "evaluation.json",
}
"""The output of each stage that writes a single file into its folder."""
_OWN_FOLDERS = (
    "agent",
    r"round-[0-9]+",
    rf"round-[0-9]+/({'|'.join(FOLDERS.values())})(-[a-z0-9-]+)?",
    r"round-[0-9]+/controller(-[a-z0-9-]+)?/[0-9]+-[A-Za-z0-9-]+",
    r"round-[0-9]+/episodes/policy",
)
"""Names of the folders into which stages write files, relative to the run."""


@dataclass(frozen=True)
class ShardPlan:
    """The episodes of one shard: their backend, a seed for each, and their time limit in steps."""

    backend: str
    seeds: list[int]
    steps: int


@dataclass(frozen=True)
class Artifacts:
    """The stages of one round of a run, or of an ablation of its controller.

    directory, run_config: those of the run; round: counted from 1; variant: "" for the full agent, or one of
    :data:`~worldmodels.run.names.VARIANTS`; dream_model: the M of the memory stage, 0 for the agent's own, from 1 for
    the additional Ms that dream.
    """

    directory: Path
    run_config: Config
    round: int = 1
    variant: str = ""
    dream_model: int = 0

    @property
    def task(self) -> Task:
        """The run's task."""
        return task_of(self.config)

    @property
    def run_name(self) -> str:
        """The name of the run's directory, which stays the same when the run is moved to another place."""
        return self.directory.resolve().name

    @property
    def config(self) -> Config:
        """The settings of this round."""
        return self.run_config if self.round == 1 else later_round(self.run_config)

    @property
    def seed(self) -> int:
        """The seed of this round, which follows from the run's seed."""
        return self.config.seed + 1_000_003 * (self.round - 1)

    @property
    def memory_seed(self) -> int:
        """The seed of this M, which is different for every dream model."""
        return self.seed + 7919 * self.dream_model

    @property
    def before(self) -> "Artifacts | None":
        """The round before this one; None for the first."""
        return dataclasses.replace(self, round=self.round - 1) if self.round > 1 else None

    @property
    def dream_models(self) -> list["Artifacts"]:
        """The artefacts of this round for each of the dream models."""
        count = 0 if self.dream_model else self.config.memory.dream_models
        return [dataclasses.replace(self, dream_model=number + 1) for number in range(count)]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs of C in this variant."""
        return inputs_of(self.config, self.variant)

    @property
    def hidden(self) -> int:
        """The number of hidden units of C in this variant."""
        return hidden_of(self.config, self.variant)

    def provenance(self, device: torch.device) -> dict[str, Any]:
        """What a stage that works now, on this device, is made with; the packages are those of all backends."""
        return provenance(device, [module for world in self.task.worlds.values() for module in world.requires])

    def stage(self, name: str) -> Stage:
        """The stage called ``name``."""
        ablated = self.variant and name in ("controller", "evaluate")
        folder = f"{FOLDERS[name]}-{self.variant}" if ablated else FOLDERS[name]
        folder += f"-{self.dream_model + 1}" if self.dream_model and name == "memory" else ""
        return Stage(folder, self.directory / f"round-{self.round}" / folder)

    def finished(self, name: str) -> bool:
        """Whether a stage is finished."""
        return (self.stage(name).directory / "done.json").exists()

    def digest(self, name: str) -> str:
        """The digest of a finished stage; for an unfinished one, a :class:`UserError` that says what to run."""
        if not self.finished(name):
            raise UserError(f"the {name} stage of {self.directory} is not finished; run: {self.command(name)}")
        return str(self.stage(name).done()["digest"])

    def command(self, name: str) -> str:
        """The command that runs a stage."""
        verb = "ablate" if self.variant else name
        return f"worldmodels {verb} {self.config.task} --run {self.directory}"

    def plan(self) -> list[ShardPlan]:
        """The shards that the collect stage of this round records, those on the reference backend last."""
        config = self.config.collect
        seeds = episode_seeds("collect", self.seed, config.episodes + config.reference_episodes)
        steps = config.steps or self.task.max_steps
        shards = [
            ShardPlan(config.backend, seeds[start : min(start + config.num_envs, config.episodes)], steps)
            for start in range(0, config.episodes, config.num_envs)
        ]
        steps = min(steps, config.reference_steps or steps)
        return shards + [
            ShardPlan(self.task.reference_backend, seeds[start : start + config.num_envs], steps)
            for start in range(config.episodes, len(seeds), config.num_envs)
        ]

    def shard_count(self) -> int:
        """Number of shards of this round and all before it."""
        return len(self.plan()) + (self.before.shard_count() if self.before is not None else 0)

    def outputs(self, name: str) -> list[Path]:
        """The files and folders that a stage writes, from which its digest is computed."""
        directory = self.stage(name).directory
        if name == "collect":
            return [EpisodeStore(directory).shard_path(index) for index in range(len(self.plan()))]
        if name == "encode":
            return [latents_path(directory, index) for index in range(self.shard_count())]
        return [directory / FILES[name]]

    def written(self, name: str) -> list[Path]:
        """The outputs of a finished stage; a :class:`UserError` if they have changed since then."""
        return self.stage(name).written(self.digest(name), self.outputs(name), self.command(name))

    def episode_digests(self) -> list[str]:
        """Digests of the collect stages of this round and all before it."""
        earlier = self.before.episode_digests() if self.before is not None else []
        return [*earlier, self.digest("collect")]

    def shards(self) -> list[Shard]:
        """The episodes of this round and all before it."""
        earlier = self.before.shards() if self.before is not None else []
        return earlier + self.own_shards()

    def own_shards(self) -> list[Shard]:
        """The episodes of this round alone."""
        return [Shard(path) for path in self.written("collect")]

    def latents(self) -> Latents:
        """The encoded episodes of this round and all before it."""
        count = len(self.written("encode"))
        return load_latents(self.stage("encode").directory, count, self.digest("vision"))

    def vision(self, device: torch.device) -> Vision:
        """The trained V of this round."""
        config = self.config.vision
        vision = make_vision(config.model, config.latent_size)
        _load_module(self.written("vision")[0], vision)
        return vision.to(device).eval()

    def new_memory(self) -> MDNRNN:
        """A new, untrained M, whose weights depend on the memory seed alone."""
        config, task, missing = self.config.memory, self.task, self.config.collect.missing
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.memory_seed + 1)
            return MDNRNN(
                self.config.vision.latent_size,
                task.action_size,
                config.hidden_size,
                config.mixtures,
                task.predicts_reward and "rewards" not in missing,
                task.predicts_end and "ends" not in missing,
                task.control_size if task.masked else 0,
                clock=task.clock_steps if config.clock is None else config.clock,
                hit=config.hit_weight > 0,
            )

    def memory(self, device: torch.device) -> MDNRNN:
        """The trained M of this round."""
        memory = self.new_memory()
        _load_module(self.written("memory")[0], memory)
        return memory.to(device)

    def agent(self, device: torch.device) -> Agent:
        """The agent of this round as it was saved, with V and M rounded to float16."""
        return load_agent(self.written("controller")[0], device.type)

    def evaluation(self) -> dict[str, Any]:
        """The scores of the finished evaluation."""
        content: dict[str, Any] = read_json(self.written("evaluate")[0])
        return content


def own_folders(run: Path) -> Iterator[Path]:
    """The run's directory and the existing folders in it into which its stages write; links are left out."""
    yield run
    for pattern in ("*", "*/*", "*/*/*"):
        for folder in run.glob(pattern):
            names = folder.relative_to(run)
            linked = any((run / part).is_symlink() for part in (names, *names.parents[:-1]))
            if folder.is_dir() and not linked and any(re.fullmatch(one, names.as_posix()) for one in _OWN_FOLDERS):
                yield folder


def _load_module(path: Path, module: torch.nn.Module) -> None:
    tensors, _ = load_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path} does not fit the run's configuration; delete its folder to redo the stage") from None
