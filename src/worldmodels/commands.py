"""The verbs: their options as dataclasses (tyro makes the help of them), and the call into the package."""

import contextlib
import dataclasses
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar, cast

import tyro

from worldmodels.config import (
    CollectConfig,
    Config,
    ControllerConfig,
    DreamConfig,
    DreamReportConfig,
    EvaluateConfig,
    MemoryConfig,
    VisionConfig,
    check,
)
from worldmodels.errors import UsageError, UserError
from worldmodels.presets import preset
from worldmodels.storage.atomic import write_json

Options = TypeVar("Options")
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]


@dataclass(frozen=True)
class RunOptions:
    """A run and its settings; what is not given comes from the run if it exists, else from the preset."""

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    preset: str = "standard"
    """quick, standard or paper."""
    run: Path | None = None
    """The run's directory (default: runs/TASK-PRESET-seedS). The same command continues it."""
    seed: int = 1
    """Seed from which every other seed follows."""
    device: str = "auto"
    """auto, cpu or cuda."""
    rounds: int = 1
    """Times round the loop; later rounds collect with the agent of the last."""
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


def _parse(kind: type[Options], verb: str, arguments: list[str], default: Options | None = None) -> Options:
    # Without a default of ours the class itself says what the defaults are.
    given = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"worldmodels {verb}", args=arguments, **given)  # type: ignore[call-overload, no-any-return]
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    raise UsageError(f"{_sentence(complaint.getvalue())}; see worldmodels {verb} --help")


def _sentence(box: str) -> str:
    """What tyro draws into a box when it cannot parse the arguments, in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    blocks = [[""]]  # of lines, parted by tyro's rules
    for line in (line.strip("│╭╮╰╯ ") for line in plain.splitlines()[1:]):
        if set(line) <= {"─"}:
            blocks.append([])
        else:
            blocks[-1].append(line)
    text = " ".join(blocks[0]).strip(" .") or "the options cannot be understood"
    text = re.sub(r"invalid literal for int\(\) with base 10: ('.*')", r"expected a whole number, got \1", text)
    text = re.sub(r"could not convert string to float: ('.*')", r"expected a number, got \1", text)
    hints = re.search(r"Perhaps you meant:\W*(--[\w.-]+)", plain)
    return f"{text}; did you mean {hints[1]}?" if hints else text


def _run_options(verb: str, arguments: list[str]) -> RunOptions:
    """Options of a run's verb, with defaults from the run or the preset that the arguments name."""
    from worldmodels.storage.run import read_config

    arguments = [re.sub(r"^--world(?==|$)", "--controller.world", text) for text in arguments]
    if verb != "evaluate":  # whose policy is the one that is scored
        arguments = [re.sub(r"^--policy(?==|$)", "--collect.policy", text) for text in arguments]
    given = {name: _value_of(f"--{name}", arguments) for name in ("preset", "run")}
    old = read_config(Path(given["run"])) if given["run"] else None
    from worldmodels.tasks import get_task, task_names

    named = next((text for text in arguments if text in task_names()), old.task if old else "car-racing")
    if old is not None and given["preset"] is None and old.task == named:
        config = old
    else:
        config = preset(given["preset"] or "standard", named)
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(Config)}
    options = _parse(RunOptions, verb, arguments, RunOptions(**values))
    task = get_task(options.task)
    for backend in (options.collect.backend, options.controller.backend):
        if backend not in task.backends:
            raise UserError(f"unknown backend {backend!r} for {task.name}; choose from {', '.join(task.backends)}")
    made = old or read_config(options.directory())
    if made is None or made.collect.policy != options.collect.policy:
        from worldmodels.players import check_policy

        check_policy(task, options.collect.policy)
    return options


def _value_of(flag: str, arguments: list[str]) -> str | None:
    for index, text in enumerate(arguments):
        if text == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if text.startswith(f"{flag}="):
            return text.split("=", 1)[1]
    return None


def train(verb: str, arguments: list[str]) -> int:
    """Every stage in order, then the summary."""
    options = _run_options(verb, arguments)
    from worldmodels.train import train_run

    train_run(options.config(), options.directory(), options.device)
    return 0


def stage(verb: str, arguments: list[str]) -> int:
    """One stage of a run."""
    options = _run_options(verb, arguments)
    from worldmodels.train import run_stage

    run_stage(verb, options.config(), options.directory(), options.device)
    return 0


@dataclass(frozen=True)
class EvaluateOptions:
    """Score an agent, or the random policy, on fresh episodes."""

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    agent: str | None = None
    """A saved agent or a run (default: the shipped agent)."""
    policy: str = "agent"
    """agent, random, or one of the world's rules."""
    episodes: int = 100
    """Fresh episodes."""
    seed: int = 1
    """Seed of the episodes; none of them is ever used in training."""
    backend: str | None = None
    """One of the world's backends (default: its reference, on which scores count)."""
    lockstep: int | None = None
    """Environments that run together (default: what suits the world)."""
    steps: int = 0
    """Longest episode, for trying things out; 0 means the task's limit, without which there is no score."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Path | None = None
    """Also write task, agent, backend, seeds, returns, mean, sd, median and ci95 to this file. With it, the same
    command goes on where it was stopped."""


def evaluate(verb: str, arguments: list[str]) -> int:
    """Score an agent; with --run, do the evaluate stage of that run."""
    if _value_of("--run", arguments) is not None:
        return stage(verb, arguments)
    options = _parse(EvaluateOptions, verb, arguments)
    few = options.lockstep is not None and options.lockstep < 1
    if options.episodes < 1 or few or min(options.seed, options.steps) < 0:
        raise UserError("--episodes and --lockstep must be positive, --seed and --steps at least 0")
    from worldmodels import evaluation
    from worldmodels.seeds import episode_seeds
    from worldmodels.tasks import get_task

    task = get_task(options.task)
    known = ("agent", "random", *task.rules)
    if options.policy not in known:
        raise UserError(f"unknown policy {options.policy!r}; choose {', '.join(known[:-1])} or {known[-1]}")
    backend = options.backend or task.reference_backend
    seeds = episode_seeds("evaluation", options.seed, options.episodes)
    name = who = options.policy
    policy = cast(evaluation.PolicyFor, task.random_policy)
    if options.policy in task.rules:
        task, policy = task.rule(options.policy)
    elif options.policy == "agent":
        name, agent = options.agent or f"shipped {task.name}", _agent(task.name, options.agent, options.device)
        policy, who = evaluation.agent_policy(agent), agent.digest()
    finished = None if options.json is None else options.json.with_name(f".{options.json.name}.finished")
    lockstep, identity = options.lockstep or task.lockstep, f"{who} {backend} {options.steps}"
    returns = evaluation.evaluate(task, policy, backend, seeds, lockstep, options.steps, finished, identity)
    result = evaluation.report(task.name, name, backend, seeds, returns)
    evaluation.print_scores({name: result})
    if options.json is not None and finished is not None:
        write_json(options.json, result)
        finished.unlink(missing_ok=True)
    return 0


def ablate(verb: str, arguments: list[str]) -> int:
    """V alone, an untrained M and a mask alone, each with its own evolution, beside the agent and the random policy."""
    options = _run_options(verb, arguments)
    from worldmodels.train import ablate_run

    ablate_run(options.config(), options.directory(), options.device)
    return 0


@dataclass(frozen=True)
class RecordOptions:
    """A video of one episode: the world, what V sees of it, and what M expected."""

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    out: Path = Path("drive.mp4")
    """The file: .mp4, .gif, or .png for some moments on one sheet."""
    agent: str | None = None
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = 1
    """Seed of the episode."""
    backend: str | None = None
    """One of the world's backends (default: its reference, on which scores count)."""
    steps: int | None = None
    """Longest episode (default: the task's limit)."""
    every: int | None = None
    """Show one step in so many (default: every step in an .mp4, every fifth elsewhere)."""


def record(verb: str, arguments: list[str]) -> int:
    """Record a video."""
    options = _parse(RecordOptions, verb, arguments)
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps must be positive, got {options.steps}")
    if options.every is not None and options.every < 1:
        raise UserError(f"--every must be positive, got {options.every}")
    agent = _agent(options.task, options.agent)
    from worldmodels.report.video import record as record_video

    result = record_video(agent, options.out, options.seed, options.backend, options.steps, options.every)
    print(f"{options.out}: return {result['return']:.1f} in {result['steps']} steps")
    return 0


def _agent(task: str, name: str | None, device: str = "cpu"):  # type: ignore[no-untyped-def]
    from worldmodels.agent import load_agent
    from worldmodels.tasks import get_task

    get_task(task)
    agent = load_agent(name or task, device)
    if agent.task.name != task:
        raise UserError(f"{name} is an agent for {agent.task.name}, not for {task}; give that task")
    return agent


@dataclass(frozen=True)
class PlayOptions:
    """Play yourself in a window; a lets the agent play, Enter is a new episode, Esc ends.

    The arrow keys steer, give gas and brake. In bin packing, type the level of the bin that takes the item (0: a new
    one) or click on it; b lets best fit choose, which also packs the same items beside you.
    """

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    seed: int = 1
    """Seed of the first episode."""
    save: Path | None = None
    """Keep every finished episode as data in this directory."""
    agent: str | None = None
    """A saved agent or a run that takes over on the key a (default: the shipped agent)."""


def play(verb: str, arguments: list[str]) -> int:
    """Play in a window."""
    options = _parse(PlayOptions, verb, arguments)
    from worldmodels.play import play as play_window
    from worldmodels.tasks import get_task

    play_window(get_task(options.task), options.seed, options.save, options.agent)
    return 0


@dataclass(frozen=True)
class DreamOptions:
    """The dream: report on how true it is, play in it, or record the agent in it."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = "play"
    """report, play or record."""
    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing; --agent says it too."""
    agent: str | None = None
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = 1
    """Seed of the dreams."""
    temperature: float = 1.0
    """Uncertainty of the dream: 1 is what M believes."""
    out: Path | None = None
    """record: the file, .mp4 or .gif (default: dream.mp4); report: the folder (default: dream-report)."""
    steps: int | None = None
    """record: longest episode (default: the task's limit)."""
    every: int | None = None
    """record: show one step in so many (default: every step in an .mp4, every fifth in a .gif)."""
    report: DreamReportConfig = field(default_factory=DreamReportConfig)


def dream(verb: str, arguments: list[str]) -> int:
    """Report on dreams, play in them or record them."""
    options = _parse(DreamOptions, verb, arguments)
    for name in ("steps", "every"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be positive, got {value}")
    from worldmodels.tasks import get_task, task_names

    task = options.task
    if options.agent is not None and not any(text in task_names() for text in arguments):
        from worldmodels.agent import load_agent

        task = load_agent(options.agent).task.name
    if options.what == "play":
        from worldmodels.play_dream import play_dream

        play_dream(get_task(task), options.seed, options.agent, options.temperature)
    elif options.what == "record":
        from worldmodels.report.dream_video import record_dream

        agent = _agent(task, options.agent)
        out = options.out or Path("dream.mp4")
        result = record_dream(agent, out, options.seed, options.temperature, options.steps, options.every)
        real = "" if result["real_score"] is None else f", {result['real_score']:.1f} in the real world"
        print(f"{out}: score {result['dream_score']:.1f} in the dream{real}, {result['steps']} steps")
    elif options.what == "report":
        from worldmodels.report.dream import DreamReport, print_report

        check(options.report, "report.")
        agent = _agent(task, options.agent)
        folder = options.out or Path("dream-report")
        print_report(DreamReport(agent, options.report, options.seed, folder).run(), folder)
    else:
        raise UserError(f"expected report, play or record, got {options.what!r}; see worldmodels dream --help")
    return 0


@dataclass(frozen=True)
class BenchOptions:
    """Speed as a ratio against a baseline and a bound, measured in the same run; medians of several repeats."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = "acting"
    """acting, vision, dream or bin-packing."""
    task: str = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    repeats: int = 5
    """Repeats of every measurement."""
    steps: int | None = None
    """Lockstep steps of one measurement of acting (default: 250)."""
    json: Path | None = None
    """Also write the figures to this file."""


def bench(verb: str, arguments: list[str]) -> int:
    """Measure speed."""
    options = _parse(BenchOptions, verb, arguments)
    if options.repeats < 1 or (options.steps is not None and options.steps < 1):
        raise UserError(f"--repeats and --steps must be positive, got {options.repeats} and {options.steps}")
    from worldmodels.bench import run_bench

    figures = run_bench(options.what, options.task, options.repeats, options.steps)
    if options.json is not None:
        write_json(options.json, figures)
    return 0


@dataclass(frozen=True)
class ProbeOptions:
    """How much of the world's state can be read linearly off V: ridge regression from its mu on fresh episodes."""

    visions: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="V ...")]
    """Runs whose stages collect and vision are done, saved agents or shipped ones; compared with each other."""
    episodes: int = 100
    """Episodes of the exploration policy: three fifths to fit, a fifth to choose the penalty, a fifth to measure."""
    frames: int = 40
    """Frames of each episode."""
    steps: int = 0
    """Longest episode; 0 means the task's limit."""
    seed: int = 1
    """Seed of the episodes, which nothing else uses."""
    out: Path = Path("probe")
    """The folder of the table and the picture."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Path | None = None
    """Also write all figures to this file."""


def probe(verb: str, arguments: list[str]) -> int:
    """Probe one V or several."""
    options = _parse(ProbeOptions, verb, arguments)
    from worldmodels.report import probe as probing

    few = options.episodes < probing.LEAST_EPISODES
    if few or options.frames < 1 or min(options.seed, options.steps) < 0:
        raise UserError(
            f"--episodes must be at least {probing.LEAST_EPISODES}, --frames positive, --seed and --steps at least 0"
        )
    if not options.visions:
        raise UserError("expected runs or agents whose V is to be probed; see worldmodels probe --help")
    sizes = (options.seed, options.episodes, options.frames, options.steps)
    probing.write(probing.probe(options.visions, *sizes, options.device), options.out, options.json)
    return 0


@dataclass(frozen=True)
class DoctorOptions:
    """What this machine has, what works, and what to install."""


def doctor(verb: str, arguments: list[str]) -> int:
    """Look at the machine."""
    _parse(DoctorOptions, verb, arguments)
    from worldmodels.doctor import main

    return main()


@dataclass(frozen=True)
class DemoOptions:
    """Train the quick preset end to end, then show its agent next to the shipped one."""

    run: Path = Path("runs/demo")
    """Where the run goes; the same command continues it."""
    seed: int = 1
    """Seed of the run."""


def demo(verb: str, arguments: list[str]) -> int:
    """The whole loop in minutes."""
    options = _parse(DemoOptions, verb, arguments)
    from worldmodels.train import demo_run

    demo_run(options.run, options.seed)
    return 0
