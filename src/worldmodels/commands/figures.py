"""The verbs that measure: evaluate, bench, probe and doctor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import tyro

from worldmodels.commands.options import TaskName, agent_for, parse, value_of
from worldmodels.commands.runs import stage
from worldmodels.errors import UserError
from worldmodels.storage.atomic import write_json


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
    if value_of("--run", arguments) is not None:
        return stage(verb, arguments)
    options = parse(EvaluateOptions, verb, arguments)
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
        name, agent = options.agent or f"shipped {task.name}", agent_for(task.name, options.agent, options.device)
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
    options = parse(BenchOptions, verb, arguments)
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
    options = parse(ProbeOptions, verb, arguments)
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
    parse(DoctorOptions, verb, arguments)
    from worldmodels.doctor import main

    return main()
