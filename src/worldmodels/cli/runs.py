"""The verbs that create and continue runs: train, its stages, ablate and demo."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldmodels.cli.env_options import without_env
from worldmodels.cli.options import TaskName, parse, value_of
from worldmodels.core.errors import UserError
from worldmodels.core.settings import choice, number, text
from worldmodels.run.config import SHORT, Config
from worldmodels.run.names import VARIANTS

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

_ABOUT = {
    "train": "Reads a run, if there is one, and continues it. Writes RUN/agent, summary.json, curves.png and a folder "
    "for every stage, as the stages do one by one. A finished stage is not run again.",
    "collect": "Reads nothing in round 1, and in later rounds the agent of the round before. Writes round-N/episodes: "
    "frames, actions and rewards of every episode, which all later stages use.",
    "vision": "Reads round-N/episodes of this round and all before. Writes round-N/vision: V, which turns a frame into "
    "a latent z and back.",
    "encode": "Reads round-N/episodes and round-N/vision. Writes round-N/latents: z of every frame, with the actions "
    "and rewards.",
    "memory": "Reads round-N/latents. Writes round-N/memory: M, which predicts the next z, the reward and the end; and "
    "a folder for every dream model.",
    "controller": "Reads V, M and the latents of round-N. Writes round-N/controller: the agent, whose C is evolved in "
    "phases, in the real world or in dreams, with a folder for every phase.",
    "evaluate": "Reads round-N/controller. Writes round-N/evaluation: the returns of the agent on fresh episodes on "
    "the reference backend, their mean and its interval.",
    "ablate": "Reads a finished run. Writes ablation.json and ablation.png, and for every ablation a folder like "
    "round-N/controller-v-only. Each ablation has the rounds, phases and budget of the full agent.",
}
"""What a verb reads and writes, N being the number of the round."""


@dataclass(frozen=True)
class RunOptions(Config):
    """A run and its settings. Settings that are not given are those of the run if it exists, else of the preset."""

    task: TaskName = text("car-racing")
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own."""
    preset: str = text("standard")
    """quick, standard or paper; for car-racing also dream, which evolves C in dreams alone."""
    run: Path | None = text(None)
    """The run's directory (default: runs/TASK-PRESET-seedS). The same command continues it."""
    device: str = choice("auto", "auto", "cpu", "cuda")
    """Device of the networks; auto uses a GPU if there is one."""
    executor: str = text("auto")
    """Where episodes are played and fitness is measured: workers (a process per core), local (this process, as for a
    GPU) or auto, which chooses by the device."""

    def config(self) -> Config:
        """The settings of the run, without the options run, device and executor."""
        return Config(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Config)})

    def directory(self) -> Path:
        """The run's directory."""
        from worldmodels.run.run import default_directory

        return self.run or default_directory(self)


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """A run and its settings, which are those of the other run with --from."""

    from_run: Annotated[Path | None, tyro.conf.arg(name="from", metavar="RUN")] = text(None)
    """Another run: makes a new one with its settings and the options given now, takes over every finished stage whose
    settings and inputs are the same (as hard links or copies) and runs the rest. Without --run, its folder is RUN-2,
    RUN-3 or the next that is free."""


@dataclass(frozen=True)
class AblateOptions(RunOptions):
    """A finished run and its settings."""

    variants: tuple[str, ...] = choice((), *VARIANTS)
    """The ablations; none means all that apply to the run."""


def run_options(verb: str, arguments: Sequence[str], description: str) -> RunOptions:
    """Parse the options of a verb of runs, with defaults from the run or else the preset that the arguments name."""
    from worldmodels.run.run import check_settings, read_config
    from worldmodels.tasks import is_task
    from worldmodels.tasks.gym_names import is_gym

    arguments, env = without_env(arguments)
    # --policy of evaluate is the policy to score.
    arguments = in_full(arguments, [short for short in SHORT if (verb, short) != ("evaluate", "policy")])
    description += f"\n\n{_ABOUT[verb]}"
    description += (
        "\n\n--policy is short for --collect.policy, --phases for --evolution.sequence. --env.KEY VALUE is an "
    )
    description += "option of gymnasium.make for the task gym:ID; car-racing has --env.action_repeat, the frames for "
    description += "which every action lasts (1 to 10; 2 in the preset quick)."
    given = {name: value_of(f"--{name}", arguments) for name in ("preset", "run", "from")}
    source = given["from"] if verb == "train" else None
    # The run that the settings come from.
    settled = source or given["run"]
    old = read_config(Path(settled)) if settled else None
    if source and old is None:
        raise UserError(f"{source} is not a run: it has no run.json; expected the folder of a run after --from")
    # A task's name that follows an option is the value of that option: a policy or a folder.
    words = zip(["", *arguments], arguments, strict=False)
    tasks = [text for before, text in words if is_task(text) and not before.startswith("--")]
    named = tasks[0] if tasks else old.task if old else "car-racing"
    config = starting_settings(old, named, given["preset"], env)
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    kinds: dict[str, type[RunOptions]] = {"train": TrainOptions, "ablate": AblateOptions}
    kind = kinds.get(verb, RunOptions)
    options = parse(kind, verb, arguments, kind(**values), description, _GROUPS[verb])
    if is_gym(options.task):
        options = dataclasses.replace(options, task=config.task)  # as it is written in full
    existing = old or read_config(options.directory())
    if existing is not None and (existing.task, existing.env) == (options.task, options.env):
        options = dataclasses.replace(options, world=existing.world)
    check_settings(options.config(), existing)
    return options


def in_full(arguments: Sequence[str], shorts: Iterable[str] = tuple(SHORT)) -> list[str]:
    """The arguments with the full names of options that have short ones, such as --phases."""
    for short in shorts:
        arguments = [re.sub(rf"^--{short}(?==|$)", f"--{SHORT[short]}", text) for text in arguments]
    return list(arguments)


def starting_settings(old: Config | None, task: str, preset_name: str | None, env: Mapping[str, Any]) -> Config:
    """The settings that options then change: those of the run ``old`` if it is one of this task, else of a preset.

    preset_name, env: as they were given, which also leads to a preset if the run has others.
    """
    from worldmodels.run.presets import preset
    from worldmodels.tasks import same_task

    if old is None or not same_task(task, old.task):
        return preset(preset_name or "standard", task, env)
    if preset_name is None and (not env or env == old.env):
        return old
    return preset(preset_name or "standard", task, env or old.env, old.world)


def train(verb: str, arguments: Sequence[str], description: str) -> int:
    """Run every stage in order, then print the summary."""
    options = run_options(verb, arguments, description)
    assert isinstance(options, TrainOptions)
    from worldmodels.run.experiments import print_summary, train_run
    from worldmodels.run.presets import resolved, task_of
    from worldmodels.run.takeover import beside

    directory, source = options.directory(), options.from_run
    if source is not None and options.run is None:
        directory = beside(source, resolved(options.config(), task_of(options.config())))
    print_summary(train_run(options.config(), directory, options.device, options.executor, source), directory)
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
    assert isinstance(options, AblateOptions)
    from worldmodels.run.ablation import ablate_run

    ablate_run(options.config(), options.directory(), options.device, options.executor, options.variants)
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
    from worldmodels.run.demo import demo_run

    demo_run(options.run, options.seed)
    return 0
