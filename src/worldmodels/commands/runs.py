"""The verbs that make and continue runs: train, its stages, ablate and demo."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

from worldmodels.commands.options import TaskName, parse, value_of
from worldmodels.config import (
    CollectConfig,
    Config,
    ControllerConfig,
    DreamConfig,
    EvaluateConfig,
    MemoryConfig,
    VisionConfig,
    check,
)
from worldmodels.errors import UserError
from worldmodels.presets import preset


@dataclass(frozen=True)
class RunOptions:
    """A run and its settings; what is not given comes from the run if it exists, else from the preset."""

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    preset: str = "standard"
    """quick, standard or paper; of car-racing also dream, which evolves C in dreams alone."""
    run: Path | None = None
    """The run's directory (default: runs/TASK-PRESET-seedS). The same command continues it."""
    seed: int = 1
    """Seed from which every other seed follows."""
    device: str = "auto"
    """auto, cpu or cuda."""
    rounds: int = 1
    """Times round the loop; later rounds collect with the agent of the last."""
    later: float = 0.5
    """How much of the first round's episodes, of V's epochs and of M's steps each later round adds to what is there."""
    collect: CollectConfig = field(default_factory=CollectConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def config(self) -> Config:
        """The settings, checked."""
        names = [item.name for item in dataclasses.fields(Config)]
        config = Config(**{name: getattr(self, name) for name in names})
        check(config)
        return config

    def directory(self) -> Path:
        """The run's directory."""
        return self.run or Path("runs") / f"{self.task}-{self.preset}-seed{self.seed}"


def run_options(verb: str, arguments: list[str]) -> RunOptions:
    """Options of a run's verb, with defaults from the run or the preset that the arguments name."""
    from worldmodels.storage.run import read_config

    arguments = [re.sub(r"^--world(?==|$)", "--controller.world", text) for text in arguments]
    if verb != "evaluate":  # whose policy is the one that is scored
        arguments = [re.sub(r"^--policy(?==|$)", "--collect.policy", text) for text in arguments]
    given = {name: value_of(f"--{name}", arguments) for name in ("preset", "run")}
    old = read_config(Path(given["run"])) if given["run"] else None
    from worldmodels.tasks import get_task, task_names

    named = next((text for text in arguments if text in task_names()), old.task if old else "car-racing")
    if old is not None and given["preset"] is None and old.task == named:
        config = old
    else:
        config = preset(given["preset"] or "standard", named)
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    options = parse(RunOptions, verb, arguments, RunOptions(**values))
    task = get_task(options.task)
    for backend in (options.collect.backend, options.controller.backend):
        if backend not in task.backends:
            raise UserError(f"unknown backend {backend!r} for {task.name}; choose from {', '.join(task.backends)}")
    made = old or read_config(options.directory())
    if made is None or made.collect.policy != options.collect.policy:
        from worldmodels.players import check_policy

        check_policy(task, options.collect.policy)
    return options


def train(verb: str, arguments: list[str]) -> int:
    """Every stage in order, then the summary."""
    options = run_options(verb, arguments)
    from worldmodels.train import train_run

    train_run(options.config(), options.directory(), options.device)
    return 0


def stage(verb: str, arguments: list[str]) -> int:
    """One stage of a run."""
    options = run_options(verb, arguments)
    from worldmodels.train import run_stage

    run_stage(verb, options.config(), options.directory(), options.device)
    return 0


def ablate(verb: str, arguments: list[str]) -> int:
    """V alone, an untrained M and a mask alone, each with its own evolution, beside the agent and the random policy."""
    options = run_options(verb, arguments)
    from worldmodels.train import ablate_run

    ablate_run(options.config(), options.directory(), options.device)
    return 0


@dataclass(frozen=True)
class DemoOptions:
    """Train the quick preset end to end, then show its agent next to the shipped one."""

    run: Path = Path("runs/demo")
    """Where the run goes; the same command continues it."""
    seed: int = 1
    """Seed of the run."""


def demo(verb: str, arguments: list[str]) -> int:
    """The whole loop in minutes."""
    options = parse(DemoOptions, verb, arguments)
    from worldmodels.train import demo_run

    demo_run(options.run, options.seed)
    return 0
