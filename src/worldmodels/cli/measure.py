"""The verbs that measure: evaluate, bench, probe and doctor."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldmodels.cli.options import OptionalTaskName, agent_for, check_output, parse, value_of
from worldmodels.cli.runs import stage
from worldmodels.core.errors import UserError
from worldmodels.core.settings import choice, number, table, text

_LEAST_EPISODES = 5
"""Fewest episodes that can be split into the three parts of a probe."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Score an agent, or the random policy, on fresh episodes."""

    task: OptionalTaskName = text(None)
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own (default: that of the agent)."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    agent: str | None = text(None)
    """A saved agent or a run (default: the shipped agent)."""
    policy: str = text("agent")
    """Policy to score: agent, random, or one of the task's rule-based policies."""
    episodes: int = number(100, low=1)
    """Number of fresh episodes."""
    seed: int = number(1, low=0)
    """Seed of the episodes, which are never used in training."""
    backend: str | None = text(None)
    """Backend of the world (default: the task's reference backend, on which scores are measured)."""
    num_envs: int | None = number(None, low=1)
    """Number of environments that are stepped together (default: the task's)."""
    steps: int = number(0, low=0)
    """Longest episode in steps, for quick trials; 0 means the task's limit. With a lower limit, the result is not a
    score."""
    device: str = choice("auto", "auto", "cpu", "cuda")
    """Device of the networks; auto uses a GPU if there is one."""
    executor: str = text("auto")
    """Where episodes are played; local means this machine."""
    json: Path | None = text(None)
    """Also write the score to this file, with every return, the seeds, and what it was made with (versions, processor,
    device). A command with this option that was stopped continues when it is run again."""


def evaluate(verb: str, arguments: Sequence[str], description: str) -> int:
    """Score a policy; with --run, run the evaluate stage of that run."""
    if value_of("--run", arguments) is not None:
        return stage(verb, arguments, description)
    description += (
        "\n\nWith --run RUN, it is the evaluate stage of that run instead, which reads the agent of its last round and "
        "writes its score into the run; see worldmodels evaluate --run RUN --help."
    )
    options = parse(EvaluateOptions, verb, arguments, description=description)
    check_output(options.json)
    import torch

    from worldmodels import evaluation
    from worldmodels.core.files import write_json
    from worldmodels.core.seeds import episode_seeds
    from worldmodels.execution.executor import make_executor
    from worldmodels.tasks import get_task

    agent, device, origin = None, torch.device("cpu"), dict[str, Any]()
    if options.policy == "agent" or options.agent is not None:  # for the other policies, the agent says the task
        agent = agent_for(options.task, options.agent, options.device, options.env)
    task = agent.task if agent is not None else get_task(options.task or "car-racing", options.env)
    name = policy_identity = options.policy
    if agent is not None and options.policy == "agent":
        name, policy_identity = options.agent or f"shipped {task.name}", agent.digest()
        policy, device, origin = evaluation.agent_policy(agent), agent.device, agent.info
    elif options.policy == "random":
        policy = task.random_policy
    elif options.policy in task.rules:
        task, policy = task.rule(options.policy)
    else:
        choices = ", ".join(("agent", *task.rules))
        raise UserError(f"unknown policy {options.policy!r}; choose {choices} or random")
    backend = options.backend or task.reference_backend
    seeds = episode_seeds("evaluation", options.seed, options.episodes)
    unfinished = None if options.json is None else options.json.with_name(f".{options.json.name}.partial")
    num_envs = options.num_envs or task.num_envs
    with contextlib.closing(make_executor(options.executor, device.type)) as executor:
        episodes = evaluation.evaluate(
            executor, task, policy, backend, seeds, num_envs, options.steps, unfinished, policy_identity, device
        )
    result = evaluation.report(task, name, backend, seeds, episodes, options.steps, device, origin)
    if options.json is not None and unfinished is not None:
        write_json(options.json, result)
        unfinished.unlink(missing_ok=True)
    # Printed last: nobody may be reading, but the file is complete.
    evaluation.print_scores({name: result})
    return 0


@dataclass(frozen=True)
class BenchOptions:
    """Speed as a ratio against a baseline and a bound, measured in the same run; medians of several repeats."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[WHAT]")] = text("acting")
    """What to measure: acting, evolution, vision, memory, dream or world."""
    task: str = text("car-racing")
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    repeats: int = number(5, low=1)
    """Repeats of every measurement."""
    steps: int | None = number(None, low=1)
    """Steps of every environment in one measurement of acting, evolution (default: 250) or world."""
    json: Path | None = text(None)
    """Also write the figures to this file."""


def bench(verb: str, arguments: Sequence[str], description: str) -> int:
    """Measure speed."""
    options = parse(BenchOptions, verb, arguments, description=description)
    check_output(options.json)
    from worldmodels.bench import run_bench
    from worldmodels.core.files import write_json

    save = partial(write_json, options.json) if options.json is not None else None
    run_bench(options.what, options.task, options.repeats, options.steps, save, options.env)
    return 0


@dataclass(frozen=True)
class ProbeOptions:
    """How well V's latents predict the world's state linearly: ridge regression from mu on fresh episodes."""

    visions: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="V ...")] = text(())
    """Runs whose vision stage is finished, saved agents or shipped agents, whose Vs are compared."""
    episodes: int = number(100, low=_LEAST_EPISODES)
    """Episodes of the exploration policy: three fifths to fit, a fifth to choose the penalty, a fifth to test."""
    frames: int = number(40, low=1)
    """Frames of each episode that are used."""
    steps: int = number(0, low=0)
    """Longest episode, in steps; 0 means the task's limit."""
    seed: int = number(1, low=0)
    """Seed of the episodes, which are not used for anything else."""
    out: Path = text(Path("probe"))
    """Folder for the table and the figure."""
    device: str = choice("auto", "auto", "cpu", "cuda")
    """Device of V; auto uses a GPU if there is one."""
    json: Path | None = text(None)
    """Also write all figures to this file."""


def probe(verb: str, arguments: Sequence[str], description: str) -> int:
    """Probe one or several Vs."""
    options = parse(ProbeOptions, verb, arguments, description=description)
    check_output(options.json)
    if not options.visions:
        raise UserError("expected runs or agents whose V is to be probed; see worldmodels probe --help")
    if len(set(options.visions)) < len(options.visions):
        raise UserError(f"expected runs or agents that differ, got {' '.join(options.visions)}")
    from worldmodels.agent import load_agent
    from worldmodels.analysis import probe as probing
    from worldmodels.core.device import choose_device
    from worldmodels.execution.executor import make_executor
    from worldmodels.run.presets import task_of
    from worldmodels.run.reader import RunReader
    from worldmodels.run.run import read_config

    visions = {}
    for name in options.visions:
        if read_config(Path(name)) is None:
            agent = load_agent(name, options.device)
            visions[name] = agent.task, agent.vision
        else:
            run = RunReader(name)
            visions[name] = task_of(run.config), run.vision(options.device)
    sizes = options.seed, options.episodes, options.frames, options.steps
    with contextlib.closing(make_executor(device=choose_device(options.device).type)) as executor:
        result = probing.probe(visions, *sizes, executor)
    probing.write(result, options.out, options.json)
    return 0


@dataclass(frozen=True)
class DoctorOptions:
    """What this machine has, what works, and what to install."""


def doctor(verb: str, arguments: Sequence[str], description: str) -> int:
    """Check this machine."""
    parse(DoctorOptions, verb, arguments, description=description)
    from worldmodels.cli.doctor import main

    return main()
