"""The stages of a run, in order: collect -> vision -> encode -> memory -> controller -> evaluate.

Every stage reads the artefacts of earlier stages, writes one artefact and is the unit of resuming: a finished stage is
not run again, an unfinished one continues, and one whose inputs have changed is a :class:`UserError`.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.agent import untrained_agent
from worldmodels.core.events import say
from worldmodels.core.files import save_tensors, write_json
from worldmodels.core.metrics import MetricsLog
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import episode_seeds
from worldmodels.core.settings import to_json
from worldmodels.data.collectors import Collector, agent_collector, make_collector
from worldmodels.data.encode import dream_starts, encode_shard
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.latents import latents_path, load_part, save_latents
from worldmodels.evaluation import agent_policy, evaluate, report
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.evolution.phases import Evolution, phases_in, phases_of
from worldmodels.execution.executor import Executor
from worldmodels.memory.train import train_memory
from worldmodels.run.artifacts import FILES, Artifacts
from worldmodels.run.stage import digests, flat
from worldmodels.vision.train import train_vision

Work = Callable[[Path, str], Mapping[str, float]]
"""Runs a stage in its folder, given a text that identifies its inputs; returns its metrics."""


@dataclass(frozen=True)
class Pipeline:
    """Runs the stages of one round. Each method runs its stage, unless it is finished, and returns its result."""

    artifacts: Artifacts
    device: torch.device
    executor: Executor

    def collect(self) -> dict[str, Any]:
        """Record episodes with the configured policy, and from the second round on with the previous round's agent."""
        artifacts = self.artifacts
        inputs: dict[str, Any] = {"collect": to_json(artifacts.config.collect)}
        if artifacts.before is not None:
            inputs["agent"] = {"digest": artifacts.before.digest("controller")}
        return self._do("collect", inputs, self._collect)

    def vision(self) -> dict[str, Any]:
        """Train V on the frames."""
        artifacts = self.artifacts
        inputs = {"vision": to_json(artifacts.config.vision), "episodes": artifacts.episode_digests()}
        return self._do("vision", inputs, self._vision)

    def encode(self) -> dict[str, Any]:
        """Encode every frame as mu and logvar."""
        artifacts = self.artifacts
        inputs = {"vision": artifacts.digest("vision"), "episodes": artifacts.episode_digests()}
        return self._do("encode", inputs, self._encode)

    def memory(self) -> dict[str, Any]:
        """Train M on the latents, and then the dream models."""
        artifacts = self.artifacts
        settings = to_json(artifacts.config.memory)
        # The number of dream models does not affect this M.
        del settings["dream_models"]
        inputs = {"memory": settings, "latents": artifacts.digest("encode")}
        result = self._do("memory", inputs, self._memory)
        others = [dataclasses.replace(self, artifacts=model).memory() for model in artifacts.dream_models]
        return result | {"seconds": result["seconds"] + sum(other["seconds"] for other in others)}

    def controller(self) -> dict[str, Any]:
        """Evolve C, phase by phase. A finished evolution continues if the settings ask for more generations."""
        artifacts, evolution = self.artifacts, self._evolution()
        phases = dict(phases_of(evolution))
        uses_dreams = any(phase.world == "dream" for phase in phases.values())
        settings = to_json(evolution) | {"phases": {name: to_json(phase) for name, phase in phases.items()}}
        inputs = {
            "evolution": settings,
            "controller": {"inputs": list(artifacts.inputs)},
            **({"dream": to_json(artifacts.config.dream)} if uses_dreams else {}),
            "vision": artifacts.digest("vision"),
            "memory": "untrained" if artifacts.variant == "untrained-m" else artifacts.digest("memory"),
            **({"dream_models": [model.digest("memory") for model in artifacts.dream_models]} if uses_dreams else {}),
            "latents": artifacts.digest("encode"),
        }
        longer = tuple(f"evolution.phases.{name}.generations" for name in phases)
        return self._do("controller", inputs, self._controller, free=longer)

    def evaluate(self) -> dict[str, Any]:
        """Score the agent on fresh episodes on the reference backend; again, if the agent or the settings change."""
        artifacts = self.artifacts
        inputs = {"evaluate": to_json(artifacts.config.evaluate), "agent": artifacts.digest("controller")}
        free = ("evaluate.episodes", "evaluate.num-envs", "evaluate.steps", "agent")
        return self._do("evaluate", inputs, self._evaluate, free)

    def _do(self, name: str, inputs: Mapping[str, Any], work: Work, free: Collection[str] = ()) -> dict[str, Any]:
        artifacts = self.artifacts
        stage = artifacts.stage(name)
        inputs = {"seed": artifacts.seed, **inputs}
        result = stage.result(inputs, free)
        missing = [path for path in artifacts.outputs(name) if not path.exists()]
        if result is not None and not missing:
            stage.tidy()
            say(f"{name}: already done")
            return result
        if result is not None:
            say(f"{name}: {missing[0]} is missing; making it again")
        with stage.begin(inputs) as watch:
            metrics = work(stage.directory, _identity(inputs, free))
            # Environments and their workers would take memory while the next stages train.
            self.executor.release()
            stage.finish(inputs, digests(artifacts.outputs(name)), watch.seconds, metrics)
        result = stage.result(inputs)
        assert result is not None
        return result

    def _collect(self, directory: Path, identity: str) -> Mapping[str, float]:
        store, plan = EpisodeStore(directory), self.artifacts.plan()
        total = sum(len(shard.seeds) for shard in plan)
        done = sum(len(shard.seeds) for index, shard in enumerate(plan) if store.has(index))
        collector = self._collector(directory)
        log = MetricsLog(directory, ("mean_return", "mean_length", "episodes_per_s"), done)
        with Progress(total, "collect", "episodes", done) as bar, contextlib.closing(log):
            recorded = 0
            for index, planned in enumerate(plan):
                recorded += len(planned.seeds)
                fresh = not store.has(index)
                if fresh:
                    store.write(index, collector.record(index, planned.backend, planned.seeds, planned.steps))
                if log.has(recorded):
                    continue
                # Read back, because a process may have been killed between writing a shard and logging it.
                shard = Shard(store.shard_path(index))
                mean_return, mean_length = float(shard.returns().mean()), float(shard.lengths.mean())
                bar.advance(fresh * len(planned.seeds), **{"return": mean_return})
                log.log(recorded, mean_return=mean_return, mean_length=mean_length, episodes_per_s=bar.rate)
        collector.finish()
        stored = [Shard(path) for path in self.artifacts.outputs("collect")]
        lengths = np.concatenate([shard.lengths for shard in stored])
        returns = np.concatenate([shard.returns() for shard in stored])
        return {
            "episodes": float(len(lengths)),
            "steps": float(lengths.sum()),
            "mean_return": float(np.mean(returns)),
        }

    def _collector(self, directory: Path) -> Collector:
        artifacts = self.artifacts
        if artifacts.before is not None:
            return agent_collector(self.executor, artifacts.before.agent(self.device))
        steps = sum(len(shard.seeds) * shard.steps for shard in artifacts.plan())
        policy = artifacts.config.collect.policy
        return make_collector(self.executor, artifacts.task, policy, directory, artifacts.seed, self.device, steps)

    def _vision(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        start = artifacts.before.vision(self.device).state_dict() if artifacts.before is not None else None
        vision, metrics = train_vision(
            artifacts.shards(), artifacts.config.vision, artifacts.seed, self.device, directory, start, identity
        )
        save_tensors(directory / FILES["vision"], vision.state_dict(), {})
        return metrics

    def _encode(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        digest, shards, vision = artifacts.digest("vision"), artifacts.shards(), artifacts.vision(self.device)
        frames = sum(shard.num_frames for shard in shards)
        done = sum(shard.num_frames for index, shard in enumerate(shards) if latents_path(directory, index).exists())
        log = MetricsLog(directory, ("mu_sd", "logvar_mean", "frames_per_s"), done)
        with Progress(frames, "encode", "frames", done) as bar, contextlib.closing(log):
            encoded = 0
            for index, shard in enumerate(shards):
                encoded += shard.num_frames
                if not latents_path(directory, index).exists():
                    save_latents(directory, index, encode_shard(vision, artifacts.task, shard, bar), digest)
                if not log.has(encoded):
                    tensors = load_part(directory, index, digest)
                    mu_sd, logvar_mean = tensors["mu"].float().std().item(), tensors["logvar"].float().mean().item()
                    log.log(encoded, mu_sd=mu_sd, logvar_mean=logvar_mean, frames_per_s=bar.rate)
        return {"frames": float(frames)}

    def _memory(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        memory = artifacts.before.memory(self.device) if artifacts.before is not None else artifacts.new_memory()
        config, scale = artifacts.config.memory, artifacts.task.reward_scale
        metrics = train_memory(
            memory, artifacts.latents(), config, artifacts.memory_seed, self.device, directory, scale, identity
        )
        save_tensors(directory / FILES["memory"], memory.state_dict(), {})
        return metrics

    def _controller(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts, evolution = self.artifacts, self._evolution()
        memory = (
            artifacts.new_memory().to(self.device)
            if artifacts.variant == "untrained-m"
            else artifacts.memory(self.device)
        )
        latents = artifacts.latents()
        agent = untrained_agent(artifacts.task, artifacts.vision(self.device), memory, artifacts.inputs)
        # The dreams of the saved agent start where the task says; those of evolution start where the settings say.
        agent.starts, agent.start_states = dream_starts(memory, latents, artifacts.task.start_steps)
        agent.info = {"preset": artifacts.config.preset, "seed": artifacts.config.seed}
        if artifacts.before is not None and not artifacts.variant:
            agent.controller = artifacts.before.agent(self.device).controller
        uses_dreams = any(phase.world == "dream" for _, phase in phases_of(evolution))
        dream_models = [model.memory(self.device) for model in artifacts.dream_models] if uses_dreams else []
        run = Evolution(
            agent, evolution, artifacts.config.dream, self.executor, artifacts.seed, latents, dream_models, identity
        )
        metrics = run.run(directory)
        agent.save(directory)
        return metrics

    def _evolution(self) -> EvolutionConfig:
        """The settings of evolution for this variant; with an untrained M, C is not evolved in dreams."""
        config = self.artifacts.config.evolution
        if self.artifacts.variant == "dream-only":
            return dataclasses.replace(config, sequence=phases_in(config, "dream")[:1])
        dreamt = not set(config.sequence).isdisjoint(phases_in(config, "dream"))
        if self.artifacts.variant == "untrained-m" and dreamt:
            return dataclasses.replace(config, sequence=phases_in(config, "real")[:1])
        return config

    def _evaluate(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        config, task = artifacts.config.evaluate, artifacts.task
        seeds = episode_seeds("evaluation", artifacts.seed, config.episodes)
        returns = evaluate(
            self.executor,
            task,
            agent_policy(artifacts.agent(self.device)),
            task.reference_backend,
            seeds,
            config.num_envs,
            config.steps,
            directory / "partial.json",
            artifacts.digest("controller"),
        )
        log = MetricsLog(directory, ("return",))
        for episode, value in enumerate(returns.tolist(), start=1):
            log.log(episode, **{"return": value})
        log.close()
        result = report(task.name, str(artifacts.directory), task.reference_backend, seeds, returns)
        write_json(directory / FILES["evaluate"], result)
        metrics = {key: result[key] for key in ("mean", "sd", "median")}
        return metrics | {"episodes": float(len(returns))}


def _identity(inputs: Mapping[str, Any], free: Collection[str]) -> str:
    """A digest of the inputs of a stage that must not change, to tell its checkpoints from those of other inputs."""
    fixed = {name: value for name, value in flat(inputs).items() if name not in free}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=list).encode()).hexdigest()
