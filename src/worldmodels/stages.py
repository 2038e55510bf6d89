"""The flow, stage by stage: collect -> vision -> encode -> memory -> controller -> evaluate.

Every stage reads what earlier ones wrote to the run, writes one artefact and is the unit of resuming: a finished stage
is not done again, an unfinished one continues, and one whose inputs changed is refused.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.agent import AGENT_FILE, Agent, controller_size, load_agent
from worldmodels.config import Config, ControllerConfig, DreamConfig, in_a_later_round
from worldmodels.encoding import dream_starts, encoded
from worldmodels.errors import UserError
from worldmodels.evaluation import agent_policy, evaluate, report
from worldmodels.evolution import evolve_everywhere
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.train import train_memory
from worldmodels.players import Player, agent_player, player_of
from worldmodels.progress import Progress, say
from worldmodels.seeds import episode_seeds
from worldmodels.storage.atomic import load_tensors, read_json, save_tensors, write_json
from worldmodels.storage.episodes import EpisodeStore, Flush
from worldmodels.storage.latents import Latents, latents_path, load_latents, load_part, save_latents
from worldmodels.storage.metrics import MetricsLog
from worldmodels.storage.run import Run
from worldmodels.storage.stage import Stage, digests
from worldmodels.tasks import Task, get_task
from worldmodels.vision.train import train_vision
from worldmodels.vision.vae import ConvVAE

STAGES = ("collect", "vision", "encode", "memory", "controller", "evaluate")
_FOLDERS = {
    "collect": "episodes",
    "vision": "vision",
    "encode": "latents",
    "memory": "memory",
    "controller": "controller",
    "evaluate": "evaluation",
}
_FILES = {
    "vision": "vision.safetensors",
    "memory": "memory.safetensors",
    "controller": AGENT_FILE,
    "evaluate": "evaluation.json",
}


@dataclass(frozen=True)
class Pipeline:
    """The stages of one round of a run. Each method does its stage, or nothing if done, and returns its result."""

    run: Run
    device: torch.device
    round: int = 1
    variant: str = ""
    """An ablation of the controller: "v-only" (z alone), "untrained-m", "mask-only" (C sees nothing) or "dream-only"
    (evolved in dreams alone); empty for the full agent."""
    dreamer: int = 0
    """Which of the further Ms the memory stage is about; 0 is the agent's own."""

    @property
    def task(self) -> Task:
        """The run's world."""
        return get_task(self.config.task)

    @property
    def config(self) -> Config:
        """The run's settings, as they are for this round."""
        return self.run.config if self.round == 1 else in_a_later_round(self.run.config)

    @property
    def seed(self) -> int:
        """The run's seed, made different for every round."""
        return self.config.seed + 1_000_003 * (self.round - 1)

    def stage(self, name: str, round_number: int | None = None) -> Stage:
        """The stage called ``name`` of this round, or of another."""
        ablated = self.variant and name in ("controller", "evaluate")
        folder = f"{_FOLDERS[name]}-{self.variant}" if ablated else _FOLDERS[name]
        folder += f"-{self.dreamer + 1}" if self.dreamer and name == "memory" else ""
        return self.run.stage(folder, round_number or self.round)

    @property
    def before(self) -> "Pipeline | None":
        """The round before this one."""
        return dataclasses.replace(self, round=self.round - 1) if self.round > 1 else None

    def digest(self, name: str, round_number: int | None = None) -> str:
        """Digest of a finished stage; :class:`UserError` says what to run when it is not finished."""
        stage = self.stage(name, round_number)
        if not (stage.directory / "done.json").exists():
            raise UserError(f"the {name} stage of {self.run.directory} is not finished; run: {self._command(name)}")
        return str(read_json(stage.directory / "done.json", checksum=True)["digest"])

    def _do(
        self,
        name: str,
        inputs: Mapping[str, Any],
        work: Callable[[Path], Mapping[str, float]],
        free: Collection[str] = (),
    ) -> dict[str, Any]:
        stage = self.stage(name)
        inputs = {"seed": self.seed, **inputs}
        result = stage.result(inputs, free)
        missing = [path for path in self._outputs(name) if not path.exists()]
        if result is not None and not missing:
            stage.tidy()
            say(f"{name}: already done")
            return result
        if result is not None:
            say(f"{name}: {missing[0]} is missing; making it again")
        with stage.begin(inputs) as watch:
            metrics = work(stage.directory)
            stage.finish(inputs, digests(self._outputs(name)), watch.seconds, metrics)
        result = stage.result(inputs)
        assert result is not None
        return result

    def _outputs(self, name: str) -> list[Path]:
        """The files and folders that the stage leaves; its digest is theirs."""
        directory = self.stage(name).directory
        if name == "collect":
            return [EpisodeStore(directory).flush_path(index) for index in range(len(self._plan()))]
        if name == "encode":
            return [latents_path(directory, index) for index in range(self._flushes_so_far())]
        return [directory / _FILES[name]]

    def written(self, name: str) -> list[Path]:
        """What the finished stage left, compared byte for byte with what it noted then."""
        return self.stage(name).written(self.digest(name), self._outputs(name), self._command(name))

    def _command(self, name: str) -> str:
        verb = "ablate" if self.variant else name
        return f"worldmodels {verb} {self.config.task} --run {self.run.directory}"

    def collect(self) -> dict[str, Any]:
        """Record episodes with the chosen policy, or from the second round on with the last round's agent."""
        config = self.config.collect
        inputs = {"collect": dataclasses.asdict(config)}
        if self.before is not None:
            inputs["agent"] = {"digest": self.digest("controller", self.round - 1)}
        return self._do("collect", inputs, self._collect)

    def _plan(self) -> list[tuple[str, list[int], int]]:
        """Backend, seeds and longest episode of every flush of a round."""
        config = self.config.collect
        seeds = episode_seeds("collect", self.seed, config.episodes + config.reference_episodes)
        steps = config.steps or self.task.max_steps
        flushes = [
            (config.backend, seeds[start : min(start + config.lockstep, config.episodes)], steps)
            for start in range(0, config.episodes, config.lockstep)
        ]
        steps = min(steps, config.reference_steps or steps)
        return flushes + [
            (self.task.reference_backend, seeds[start : start + config.lockstep], steps)
            for start in range(config.episodes, len(seeds), config.lockstep)
        ]

    def _flushes_so_far(self) -> int:
        return len(self._plan()) + (self.before._flushes_so_far() if self.before is not None else 0)

    def _collect(self, directory: Path) -> Mapping[str, float]:
        store, flushes = EpisodeStore(directory), self._plan()
        total = sum(len(chunk) for _, chunk, _ in flushes)
        done = sum(len(chunk) for index, (_, chunk, _) in enumerate(flushes) if store.has(index))
        player = self._player(directory)
        log = MetricsLog(directory, ("mean_return", "mean_length", "episodes_per_s"), done)
        with Progress(total, "collect", "episodes", done) as bar, contextlib.closing(log):
            seen = 0
            for index, (backend, chunk, steps) in enumerate(flushes):
                seen += len(chunk)
                fresh = not store.has(index)
                if fresh:
                    store.write(index, player.record(index, backend, chunk, steps))
                if log.has(seen):
                    continue
                # Read back, since a process may have been killed between writing a flush and noting it.
                flush = Flush(store.flush_path(index))
                mean_return, mean_length = float(flush.returns().mean()), float(flush.lengths.mean())
                bar.advance(fresh * len(chunk), **{"return": mean_return})
                log.log(seen, mean_return=mean_return, mean_length=mean_length, episodes_per_s=bar.rate)
        player.finish()
        stored = [Flush(path) for path in self._outputs("collect")]
        lengths = np.concatenate([flush.lengths for flush in stored])
        returns = np.concatenate([flush.returns() for flush in stored])
        return {
            "episodes": float(len(lengths)),
            "frames": float(lengths.sum()),
            "mean_return": float(np.mean(returns)),
        }

    def _player(self, directory: Path) -> Player:
        if self.before is not None:
            return agent_player(self.before.agent())
        steps = sum(len(seeds) * limit for _, seeds, limit in self._plan())
        return player_of(self.task, self.config.collect.policy, directory, self.seed, self.device, steps)

    def flushes(self) -> list[Flush]:
        """The episodes of this round and all before it."""
        earlier = self.before.flushes() if self.before is not None else []
        return earlier + [Flush(path) for path in self.written("collect")]

    def _episodes_digest(self) -> list[str]:
        return [self.digest("collect", number) for number in range(1, self.round + 1)]

    def vision(self) -> dict[str, Any]:
        """Train V on the frames."""
        inputs = {"vision": dataclasses.asdict(self.config.vision), "episodes": self._episodes_digest()}
        return self._do("vision", inputs, self._vision)

    def _vision(self, directory: Path) -> Mapping[str, float]:
        start = self.before.load_vision().state_dict() if self.before is not None else None
        flushes = self.flushes()
        vision, metrics = train_vision(flushes, self.config.vision, self.seed, self.device, directory, start)
        save_tensors(directory / _FILES["vision"], vision.state_dict(), {})
        return metrics

    def load_vision(self) -> ConvVAE:
        """The trained V of this round."""
        vision = ConvVAE(self.config.vision.latent_size)
        _load_module(self.written("vision")[0], vision)
        return vision.to(self.device)

    def encode(self) -> dict[str, Any]:
        """Turn every frame into mu and logvar."""
        inputs = {"vision": self.digest("vision"), "episodes": self._episodes_digest()}
        return self._do("encode", inputs, self._encode)

    def _encode(self, directory: Path) -> Mapping[str, float]:
        digest, flushes = self.digest("vision"), self.flushes()
        agent = self._untrained_controller(self.load_vision(), self.new_memory())
        frames = sum(flush.num_frames for flush in flushes)
        done = sum(flush.num_frames for index, flush in enumerate(flushes) if latents_path(directory, index).exists())
        log = MetricsLog(directory, ("mu_sd", "logvar_mean", "frames_per_s"), done)
        with Progress(frames, "encode", "frames", done) as bar, contextlib.closing(log):
            seen = 0
            for index, flush in enumerate(flushes):
                path = latents_path(directory, index)
                seen += flush.num_frames
                if not path.exists():
                    save_latents(directory, index, encoded(agent, flush, bar), digest)
                if not log.has(seen):
                    tensors = load_part(directory, index, digest)
                    mu_sd, logvar_mean = tensors["mu"].float().std().item(), tensors["logvar"].float().mean().item()
                    log.log(seen, mu_sd=mu_sd, logvar_mean=logvar_mean, frames_per_s=bar.rate)
        return {"frames": float(frames)}

    def load_latents(self) -> Latents:
        """The encoded episodes of this round and all before it."""
        count = len(self.written("encode"))
        return load_latents(self.stage("encode").directory, count, self.digest("vision"))

    def memory(self) -> dict[str, Any]:
        """Train M on the latents, and those that dream for it."""
        settings = dataclasses.asdict(self.config.memory)
        # More of them are more work for others, not for this one.
        del settings["dreamers"]
        inputs = {"memory": settings, "latents": self.digest("encode")}
        result = self._do("memory", inputs, self._memory)
        others = [one.memory() for one in self._dreamers]
        return result | {"seconds": result["seconds"] + sum(one["seconds"] for one in others)}

    @property
    def _dreamers(self) -> list["Pipeline"]:
        count = 0 if self.dreamer else self.config.memory.dreamers
        return [dataclasses.replace(self, dreamer=number + 1) for number in range(count)]

    def _memory(self, directory: Path) -> Mapping[str, float]:
        latents = self.load_latents()
        memory = self.before.load_memory() if self.before is not None else self.new_memory()
        config, scale = self.config.memory, self.task.reward_scale
        metrics = train_memory(memory, latents, config, self._memory_seed, self.device, directory, scale)
        save_tensors(directory / _FILES["memory"], memory.state_dict(), {})
        return metrics

    @property
    def _memory_seed(self) -> int:
        return self.seed + 7919 * self.dreamer

    def new_memory(self) -> MDNRNN:
        """An untrained M, the same one for the same seed."""
        torch.manual_seed(self._memory_seed + 1)
        config, task = self.config.memory, self.task
        return MDNRNN(
            self.config.vision.latent_size,
            task.action_size,
            config.hidden_size,
            config.mixtures,
            task.predicts_reward,
            task.predicts_end,
            task.control_size if task.masked else 0,
        )

    def load_memory(self) -> MDNRNN:
        """The trained M of this round."""
        memory = self.new_memory()
        _load_module(self.written("memory")[0], memory)
        return memory.to(self.device)

    def controller(self) -> dict[str, Any]:
        """Evolve C in the real world or the dream; more generations continue a finished evolution."""
        # Lists, as JSON gives them back.
        settings = dataclasses.asdict(self._evolution) | {"features": list(self._features)}
        dream = dataclasses.asdict(self._dream) | {"begins": list(self._dream.begins)}
        dreamt = "dream" in self._evolution.world
        inputs = {
            "controller": settings,
            **({"dream": dream} if dreamt else {}),
            "vision": self.digest("vision"),
            "memory": self.digest("memory") if self.variant != "untrained-m" else "untrained",
            **({"dreamers": [one.digest("memory") for one in self._dreamers]} if dreamt and self._dreamers else {}),
            "latents": self.digest("encode"),
        }
        # What went on in the real world cannot be told to have begun with another C.
        longer = {"dream": "dream.generations"}.get(self._evolution.world, "controller.generations")
        return self._do("controller", inputs, self._controller, free=(longer,))

    def _controller(self, directory: Path) -> Mapping[str, float]:
        memory = self.new_memory() if self.variant == "untrained-m" else self.load_memory()
        latents = self.load_latents()
        agent = self._untrained_controller(self.load_vision(), memory)
        agent.starts, agent.start_states = dream_starts(agent, latents)
        agent.info = {"preset": self.config.preset, "seed": self.config.seed}
        if self.before is not None and not self.variant:
            agent.controller = self.before.agent().controller
        dreamers = [one.load_memory() for one in self._dreamers] if "dream" in self._evolution.world else []
        metrics = evolve_everywhere(agent, self._evolution, self._dream, self.seed, directory, latents, dreamers)
        agent.save(directory)
        return metrics

    @property
    def _evolution(self) -> ControllerConfig:
        # An untrained M has no dreams.
        worlds = {"dream-only": "dream", "untrained-m": "real"}
        settings = self.config.controller
        return dataclasses.replace(settings, world=worlds.get(self.variant, settings.world))

    @property
    def _dream(self) -> DreamConfig:
        # An ablation begins with a C of zeros in every round.
        dream = self.config.dream
        return dataclasses.replace(dream, sigma=self.run.config.dream.sigma) if self.variant else dream

    @property
    def _features(self) -> tuple[str, ...]:
        blinded: dict[str, tuple[str, ...]] = {"v-only": ("z",), "mask-only": ()}
        return blinded.get(self.variant, self.config.controller.features)

    def _untrained_controller(self, vision: ConvVAE, memory: MDNRNN) -> Agent:
        features = self._features
        parameters = torch.zeros(controller_size(self.task, vision, memory, features))
        return Agent(self.task, vision, memory.to(self.device), parameters, features)

    def agent(self) -> Agent:
        """The agent of this round, as it is saved (float16)."""
        return load_agent(self.written("controller")[0], self.device.type)

    def evaluate(self) -> dict[str, Any]:
        """Score the agent on fresh episodes of the reference backend; another agent or number is scored anew."""
        inputs = {"evaluate": dataclasses.asdict(self.config.evaluate), "agent": self.digest("controller")}
        free = ("evaluate.episodes", "evaluate.lockstep", "evaluate.steps", "agent")
        return self._do("evaluate", inputs, self._evaluate, free)

    def evaluation(self) -> dict[str, Any]:
        """The scores of the finished evaluation."""
        content: dict[str, Any] = read_json(self.written("evaluate")[0])
        return content

    def _evaluate(self, directory: Path) -> Mapping[str, float]:
        config, task = self.config.evaluate, self.task
        seeds = episode_seeds("evaluation", self.seed, config.episodes)
        partial = directory / "partial.json"
        policy = agent_policy(self.agent())
        returns = evaluate(
            task,
            policy,
            task.reference_backend,
            seeds,
            config.lockstep,
            config.steps,
            partial,
            self.digest("controller"),
        )
        log = MetricsLog(directory, ("return",))
        for episode, value in enumerate(returns.tolist(), start=1):
            log.log(episode, **{"return": value})
        log.close()
        result = report(task.name, str(self.run.directory), task.reference_backend, seeds, returns)
        write_json(directory / _FILES["evaluate"], result)
        metrics = {key: result[key] for key in ("mean", "sd", "median")}
        return metrics | {"episodes": float(len(returns))}


def _load_module(path: Path, module: torch.nn.Module) -> None:
    tensors, _ = load_tensors(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path} does not fit the run's configuration; delete its folder to redo the stage") from None
