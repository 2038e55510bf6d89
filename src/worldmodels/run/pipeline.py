"""The stages of a run, in order: collect -> vision -> encode -> memory -> controller -> evaluate.

Every stage reads the artefacts of earlier stages, writes one artefact and is the unit of resuming: a finished stage is
not run again, an unfinished one continues, and one whose inputs have changed is a :class:`UserError`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
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
from worldmodels.data.collectors import IMPORTED, Collector, agent_collector, check_policy, make_collector
from worldmodels.data.completeness import missing_from
from worldmodels.data.encode import encode_shard, set_starts
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.latents import latents_path, load_part, save_latents
from worldmodels.dream.dropout_info import dropout_info
from worldmodels.evaluation import agent_policy, evaluate, report
from worldmodels.evolution.carry import carried_controller
from worldmodels.evolution.phases import Evolution, phases_of
from worldmodels.execution.executor import Executor
from worldmodels.memory.train import train_memory
from worldmodels.run.artifacts import FILES, Artifacts, ShardPlan
from worldmodels.run.inputs import inputs_of_stage
from worldmodels.run.stage import digests, flat
from worldmodels.run.takeover import Source
from worldmodels.run.variants import evolution_of
from worldmodels.vision.train import train_vision

Work = Callable[[Path, str], Mapping[str, float]]
"""Runs a stage in its folder, given a text that identifies its inputs; returns its metrics."""


@dataclass(frozen=True)
class Pipeline:
    """Runs the stages of one round. Each method runs its stage, unless it is finished, and returns its result.

    source: another run, whose finished stages are taken over where they have the same inputs.
    """

    artifacts: Artifacts
    device: torch.device
    executor: Executor
    source: Source | None = None

    def collect(self) -> dict[str, Any]:
        """Record episodes with the configured policy, and from the second round on with the previous round's agent."""
        return self._do("collect", self._collect)

    def vision(self) -> dict[str, Any]:
        """Train V on the frames."""
        return self._do("vision", self._vision)

    def encode(self) -> dict[str, Any]:
        """Encode every frame as mu and logvar."""
        return self._do("encode", self._encode)

    def memory(self) -> dict[str, Any]:
        """Train M on the latents, and then the dream models."""
        result = self._do("memory", self._memory)
        others = [dataclasses.replace(self, artifacts=model).memory() for model in self.artifacts.dream_models]
        return result | {"seconds": result["seconds"] + sum(other["seconds"] for other in others)}

    def controller(self) -> dict[str, Any]:
        """Evolve C, phase by phase. A finished evolution continues if the settings ask for more generations."""
        return self._do("controller", self._controller)

    def evaluate(self) -> dict[str, Any]:
        """Score the agent on fresh episodes on the reference backend.

        It is scored again if the agent, the settings, the device, or the versions of packages have changed.
        """
        return self._do("evaluate", self._evaluate)

    def fill(self, name: str, work: Work) -> dict[str, Any]:
        """Run ``work``, which takes a result from elsewhere, in place of a stage's own work, unless it is finished."""
        return self._do(name, work)

    def _do(self, name: str, work: Work) -> dict[str, Any]:
        artifacts = self.artifacts
        stage, wanted = artifacts.stage(name), inputs_of_stage(artifacts, name, self.device)
        inputs, free = wanted.values, wanted.free
        taken = self.source is not None and self.source.take_over(name, artifacts, wanted, self.device)
        result = stage.result(inputs, free)
        missing = [path for path in artifacts.outputs(name) if not path.exists()]
        if result is not None and not missing:
            stage.tidy()
            if not taken:
                say(f"{name}: already done")
            return result
        if result is not None:
            say(f"{name}: {missing[0]} is missing; making it again")
        with stage.begin(inputs, artifacts.provenance(self.device)) as watch:
            metrics = work(stage.directory, _identity(inputs, free))
            # Environments and their workers would take memory while the next stages train.
            self.executor.release()
            stage.finish(inputs, digests(artifacts.outputs(name)), watch.seconds, metrics)
        result = stage.result(inputs)
        assert result is not None
        return result

    def _collect(self, directory: Path, identity: str) -> Mapping[str, float]:
        store, plan = EpisodeStore(directory), self.artifacts.plan()
        if self.artifacts.config.collect.policy.startswith(IMPORTED) and self.artifacts.before is None:
            check_policy(self.artifacts.task, self.artifacts.config.collect.policy)
        self._remove_wrong_shards(store, plan)
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
        return collected([Shard(path) for path in self.artifacts.outputs("collect")])

    def _remove_wrong_shards(self, store: EpisodeStore, plan: Sequence[ShardPlan]) -> None:
        """Remove stored shards that are not what an earlier process recorded, so that they are recorded again."""
        for index, planned in enumerate(plan):
            path = store.shard_path(index)
            if not os.path.lexists(path):
                continue
            size = self.artifacts.task.action_size
            problem = missing_from(path, planned.seeds, planned.steps, planned.backend, size)
            if problem:
                say(f"collect: {path} is damaged ({problem}); recording it again")
                store.remove(index)

    def _collector(self, directory: Path) -> Collector:
        artifacts, settings = self.artifacts, self.artifacts.config.collect
        if artifacts.before is not None:
            agent = artifacts.before.agent(self.device)
            return agent_collector(self.executor, agent, settings.later_noise, settings.later_noise_free)
        return make_collector(
            self.executor,
            artifacts.task,
            settings.policy,
            directory,
            artifacts.seed,
            self.device,
            sum(len(shard.seeds) * shard.steps for shard in artifacts.plan()),
            settings.later_noise,
            settings.later_noise_free,
        )

    def _vision(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        start = artifacts.before.vision(self.device).state_dict() if artifacts.before is not None else None
        settings, shows_end = artifacts.config.vision, artifacts.task.shows_end
        vision, metrics = train_vision(
            artifacts.shards(),
            settings,
            artifacts.seed,
            self.device,
            directory,
            start,
            identity,
            shows_end,
            artifacts.run_config.seed,
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
        config, task = artifacts.config.memory, artifacts.task
        metrics = train_memory(
            memory,
            artifacts.latents(),
            config,
            artifacts.memory_seed,
            self.device,
            directory,
            task.reward_scale,
            identity,
            task.shows_end,
            artifacts.run_config.seed,
        )
        save_tensors(directory / FILES["memory"], memory.state_dict(), {})
        return metrics

    def _controller(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        evolution = evolution_of(artifacts.config.evolution, artifacts.variant)
        if artifacts.variant == "untrained-m":
            # The same in every round, because C has learnt to use what this M says.
            memory = dataclasses.replace(artifacts, round=1).new_memory().to(self.device)
        else:
            memory = artifacts.memory(self.device)
        latents = artifacts.latents()
        agent = untrained_agent(
            artifacts.task, artifacts.vision(self.device), memory, artifacts.inputs, artifacts.hidden
        )
        agent.samples_z = artifacts.config.controller.acts_on == "sample"
        # The dreams of the saved agent start where the task says; those of evolution start where the settings say.
        set_starts(agent, latents, artifacts.task.start_steps)
        agent.info = {"preset": artifacts.config.preset, "seed": artifacts.config.seed}
        carried: dict[str, float] = {}
        if artifacts.before is not None and evolution.carry != "none":
            before = artifacts.before.agent(self.device)
            agent.controller = before.controller
            if evolution.carry == "ridge":
                fitted = carried_controller(before, agent, artifacts.own_shards(), latents, directory, identity)
                agent.controller, carried = fitted.controller, fitted.metrics
        uses_dreams = any(phase.world == "dream" for _, phase in phases_of(evolution))
        dream_models = [model.memory(self.device) for model in artifacts.dream_models] if uses_dreams else []
        trained = artifacts.variant != "untrained-m"
        agent.info |= dropout_info(
            artifacts.config.memory.dropout if trained else 0.0, artifacts.config.dream.dropout if uses_dreams else 0.0
        )
        run = Evolution(
            agent, evolution, artifacts.config.dream, self.executor, artifacts.seed, latents, dream_models, identity
        )
        metrics = run.run(directory)
        agent.save(directory)
        return metrics | carried

    def _evaluate(self, directory: Path, identity: str) -> Mapping[str, float]:
        artifacts = self.artifacts
        config, task = artifacts.config.evaluate, artifacts.task
        seeds = episode_seeds("evaluation", artifacts.seed, config.episodes)
        episodes = evaluate(
            self.executor,
            task,
            agent_policy(artifacts.agent(self.device)),
            task.reference_backend,
            seeds,
            config.num_envs,
            config.steps,
            directory / "partial.json",
            artifacts.digest("controller"),
            self.device,
        )
        log = MetricsLog(directory, ("return",))
        for episode, value in enumerate(episodes.returns.tolist(), start=1):
            log.log(episode, **{"return": value})
        log.close()
        run = artifacts.run_config
        origin = {"run": artifacts.run_name, "preset": run.preset, "round": artifacts.round, "seed": run.seed}
        name = str(artifacts.directory)
        result = report(task, name, task.reference_backend, seeds, episodes, config.steps, self.device, origin)
        write_json(directory / FILES["evaluate"], result)
        metrics = {key: result[key] for key in ("mean", "sd", "median") if result[key] is not None}
        cut = {"cut_short_at_steps": float(result["steps"])} if result["cut_short"] else {}
        finished = {"finished": result["finished"]["share"]} if "finished" in result else {}
        return metrics | finished | {"episodes": float(len(result["returns"]))} | cut


def collected(shards: Sequence[Shard]) -> dict[str, float]:
    """The metrics of a collect stage that has stored these shards."""
    lengths = np.concatenate([shard.lengths for shard in shards])
    returns = np.concatenate([shard.returns() for shard in shards])
    return {"episodes": float(len(lengths)), "steps": float(lengths.sum()), "mean_return": float(np.mean(returns))}


def _identity(inputs: Mapping[str, Any], free: Collection[str]) -> str:
    """A digest of the inputs of a stage that must not change, to tell its checkpoints from those of other inputs."""
    fixed = {name: value for name, value in flat(inputs).items() if name not in free}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True, default=list).encode()).hexdigest()
