"""What ``import worldmodels`` offers for runs: presets, training, reading and scoring."""

import contextlib
from pathlib import Path
from typing import Any

from worldmodels import evaluation
from worldmodels.agent import Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.execution.executor import make_executor
from worldmodels.run import experiments, presets
from worldmodels.run.config import Config
from worldmodels.run.names import STAGES
from worldmodels.run.reader import RunReader
from worldmodels.run.run import check_settings, default_directory, read_config
from worldmodels.run.takeover import beside


def preset(name: str = "standard", task: str = "car-racing", **settings: Any) -> Config:
    """The settings of the preset called ``name`` of a task, with other values for some of them.

    settings: values by the names of the command line, so that ``preset("quick", seed=2, **{"memory.steps": 100})`` has
    the settings of ``worldmodels train --preset quick --seed 2 --memory.steps 100``. task: also "gym:ID" for any
    Gymnasium environment that shows a picture. Settings "env.KEY" are options of the environment: those of
    ``gymnasium.make`` for gym:ID, and "env.action_repeat" for car-racing. Raises :class:`UserError` for a preset, task
    or setting that does not exist, and for a value of the wrong type or out of bounds.
    """
    options = {key.removeprefix("env."): value for key, value in settings.items() if key.startswith("env.")}
    others = {key: value for key, value in settings.items() if not key.startswith("env.")}
    return presets.preset(name, task, options).with_settings(**others)


def train(
    config: Config,
    run: Path | str | None = None,
    device: str = "auto",
    executor: str = "auto",
    from_run: Path | str | None = None,
) -> RunReader:
    """Run all stages that are not finished, from recording episodes to scoring the agent; returns the finished run.

    config: the settings, from :func:`preset` or from another run (``open_run(...).config``); run: its folder (None: as
    the command line chooses it, runs/TASK-PRESET-seedS); a run that was stopped continues with the same call. device:
    "auto" (a GPU if there is one), "cpu" or "cuda". executor: where episodes are
    played: "workers" (in a process per core), "local" (in this one, as for a GPU), or "auto", which chooses by device.
    from_run: another run of the same task, whose finished stages with the same settings and inputs are taken over (None
    for run: a folder beside it, RUN-2 or the next that is free). It takes minutes to hours; progress goes to stderr.

    Raises :class:`UserError` for settings that do not fit the task or the folder, which is then unchanged, and if a
    stage fails.

    Example: ``train(preset("quick"), "runs/first").evaluation()["mean"]``
    """
    if not isinstance(config, Config):
        raise UserError(f"expected a Config, such as worldmodels.preset('quick'), got {type(config).__name__}")
    source = None if from_run is None else Path(from_run)
    if run is not None:
        directory = Path(run)
    elif source is not None:
        directory = beside(source, presets.resolved(config, presets.task_of(config)))
    else:
        directory = default_directory(config)
    check_settings(config, read_config(directory) or (read_config(source) if source is not None else None))
    experiments.train_run(config, directory, device, executor, source)
    return RunReader(directory)


def run_stage(name: str, config: Config, run: Path | str, device: str = "auto", executor: str = "auto") -> RunReader:
    """Run one stage, of the last round, as ``worldmodels NAME --run RUN`` does; returns the run, which it may begin.

    name: "collect", "vision", "encode", "memory", "controller" or "evaluate"; the stages before it must be finished.
    What was stopped continues, and a finished stage does nothing. The other arguments are those of :func:`train`.
    Raises :class:`UserError` for an unknown stage, and if a stage that it needs is not finished.

    Example: ``run_stage("collect", preset("quick"), "runs/first").returns()``
    """
    if name not in STAGES:
        raise UserError(f"unknown stage {name!r}; choose from {', '.join(STAGES)}")
    directory = Path(run)
    check_settings(config, read_config(directory))
    experiments.run_stage(name, config, directory, device, executor)
    return RunReader(directory)


def open_run(path: Path | str) -> RunReader:
    """The run in the folder ``path``, finished or not, even while another process continues it; it is only read.

    Raises :class:`UserError` if it is not a run of this version.

    Example: ``open_run("runs/first").metrics("vision")["loss"]``
    """
    return RunReader(path)


def evaluate(
    agent: Agent | str | Path,
    episodes: int = 100,
    seed: int = 1,
    *,
    backend: str | None = None,
    num_envs: int | None = None,
    steps: int = 0,
    device: str = "auto",
    executor: str = "auto",
) -> dict[str, Any]:
    """Score an agent on fresh episodes, which are never used in training, as ``worldmodels evaluate`` does.

    agent: an :class:`Agent`, the name of a shipped one or a path; episodes: their number; seed: from which their seeds
    follow; backend: of the world (None: the task's reference backend, on which scores are measured); num_envs: number
    of environments that are stepped together (None: the task's); steps: longest episode, 0 means the task's limit (with
    a lower limit, the result is not a score); device: for an agent that must be loaded. Raises :class:`UserError` for
    an agent or a backend that does not exist.

    Returns a dictionary: task, agent, the run, preset, round and run_seed that the agent comes from (None if unknown),
    backend, device, episodes, steps (of the longest episode), cut_short (whether that is below the task's limit), mean,
    sd, median, ci95 (by Student's t; sd and ci95 are None for one episode), seeds, returns (one per episode), and
    made_with (versions, processor, threads and device). For CarRacing also facts (of every episode its steps, whether
    the lap was finished, and the share of tiles that were visited) and finished (count, share and ci95 of those laps).

    Example: ``evaluate("car-racing", episodes=10)["mean"]``
    """
    if episodes < 1 or steps < 0 or (num_envs is not None and num_envs < 1):
        raise UserError(
            f"expected at least 1 episode and environment, got {episodes} and {num_envs}, and {steps} steps"
        )
    name = repr(agent) if isinstance(agent, Agent) else str(agent)
    agent = agent if isinstance(agent, Agent) else load_agent(agent, device)
    task, seeds = agent.task, episode_seeds("evaluation", seed, episodes)
    policy, chosen = evaluation.agent_policy(agent), backend or task.reference_backend
    with contextlib.closing(make_executor(executor, agent.device.type)) as workers:
        count = num_envs or task.num_envs
        played = evaluation.evaluate(workers, task, policy, chosen, seeds, count, steps, device=agent.device)
    return evaluation.report(task, name, chosen, seeds, played, steps, agent.device, agent.info)
