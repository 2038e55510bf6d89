"""The verbs that create and continue runs: train, its stages, ablate and demo."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worldmodels.cli.options import TaskName, parse, value_of
from worldmodels.core.settings import choice, number, text
from worldmodels.run.config import Config

_GROUPS = {
    "train": (),
    "ablate": (),
    "collect": ("collect",),
    "vision": ("vision",),
    "encode": (),
    "memory": ("memory",),
    "controller": ("controller", "evolution", "dream"),
    "evaluate": ("evaluate",),
}
"""Groups of settings that the ``--help`` of a verb shows."""
_SHORT = {"--phases": "--evolution.sequence", "--policy": "--collect.policy"}
"""Short forms of options."""


@dataclass(frozen=True)
class RunOptions(Config):
    """A run and its settings. Settings that are not given are those of the run if it exists, else of the preset."""

    task: TaskName = text("car-racing")
    """The world: car-racing, take-cover, bin-packing or one of your own."""
    preset: str = text("standard")
    """quick, standard or paper; for car-racing also dream, which evolves C in dreams alone."""
    run: Path | None = text(None)
    """The run's directory (default: runs/TASK-PRESET-seedS). The same command continues it."""
    device: str = choice("auto", "auto", "cpu", "cuda")
    """Device of the networks; auto uses a GPU if there is one."""
    executor: str = text("local")
    """Where episodes are played and fitness is measured; local means this machine."""

    def config(self) -> Config:
        """The settings of the run, without the options run, device and executor."""
        return Config(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Config)})

    def directory(self) -> Path:
        """The run's directory."""
        return self.run or Path("runs") / f"{self.task}-{self.preset}-seed{self.seed}"


def run_options(verb: str, arguments: Sequence[str], description: str) -> RunOptions:
    """Parse the options of a verb of runs, with defaults from the run or else the preset that the arguments name."""
    from worldmodels.run.presets import preset, resolved
    from worldmodels.run.run import read_config
    from worldmodels.tasks import get_task, task_names
    from worldmodels.tasks.base import check_backend

    for short, long in _SHORT.items():
        if (verb, short) != ("evaluate", "--policy"):  # --policy of evaluate is the policy to score
            arguments = [re.sub(rf"^{short}(?==|$)", long, text) for text in arguments]
    description += "\n\n--policy is short for --collect.policy, --phases for --evolution.sequence."
    given = {name: value_of(f"--{name}", arguments) for name in ("preset", "run")}
    old = read_config(Path(given["run"])) if given["run"] else None
    # A task's name that follows an option is the value of that option: a policy or a folder.
    words = zip(["", *arguments], arguments, strict=False)
    tasks = [text for before, text in words if text in task_names() and not before.startswith("--")]
    named = tasks[0] if tasks else old.task if old else "car-racing"
    if old is not None and given["preset"] is None and old.task == named:
        config = old
    else:
        config = preset(given["preset"] or "standard", named)
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    options = parse(RunOptions, verb, arguments, RunOptions(**values), description, _GROUPS[verb])
    task = get_task(options.task)
    settings = resolved(options.config(), task)
    for backend in (settings.collect.backend, settings.evolution.backend):
        check_backend(task, backend)
    existing = old or read_config(options.directory())
    if existing is None or existing.collect.policy != options.collect.policy:
        from worldmodels.data.collectors import check_policy

        check_policy(task, options.collect.policy)
    return options


def train(verb: str, arguments: Sequence[str], description: str) -> int:
    """Run every stage in order, then print the summary."""
    options = run_options(verb, arguments, description)
    from worldmodels.run.experiments import train_run

    train_run(options.config(), options.directory(), options.device, options.executor)
    return 0


def stage(verb: str, arguments: Sequence[str], description: str) -> int:
    """Run one stage of a run."""
    options = run_options(verb, arguments, description)
    from worldmodels.run.experiments import run_stage

    run_stage(verb, options.config(), options.directory(), options.device, options.executor)
    return 0


def ablate(verb: str, arguments: Sequence[str], description: str) -> int:
    """Evolve and score ablations, and compare them with the agent and the random policy."""
    options = run_options(verb, arguments, description)
    from worldmodels.run.experiments import ablate_run

    ablate_run(options.config(), options.directory(), options.device, options.executor)
    return 0


@dataclass(frozen=True)
class DemoOptions:
    """Train the quick preset end to end, then show its agent next to the shipped one."""

    run: Path = text(Path("runs/demo"))
    """The run's directory. The same command continues it."""
    seed: int = number(1, low=0)
    """Seed of the run."""


def demo(verb: str, arguments: Sequence[str], description: str) -> int:
    """Train and show the quick preset."""
    options = parse(DemoOptions, verb, arguments, description=description)
    from worldmodels.run.experiments import demo_run

    demo_run(options.run, options.seed)
    return 0
