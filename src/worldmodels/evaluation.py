"""Scores of policies on fresh episodes: mean, standard deviation, median and a 95% confidence interval."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import read_json, write_json
from worldmodels.core.progress import Progress
from worldmodels.core.terminal import console
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import PolicyFor


def agent_policy(agent: Agent) -> PolicyFor:
    """The agent as the policy of every episode, for :func:`evaluate`."""
    return lambda seeds: agent.policy(len(seeds))


def evaluate(
    executor: Executor,
    task: Task,
    policy: PolicyFor,
    backend: str,
    seeds: Sequence[int],
    num_envs: int,
    steps: int = 0,
    partial_file: Path | None = None,
    identity: str = "",
) -> np.ndarray:
    """The returns (len(seeds),) of one episode per seed.

    num_envs: episodes that are played together; steps: longest episode (0: the task's limit); partial_file: a JSON file
    that keeps the finished episodes, so that a killed evaluation can continue; identity: a text for the policy. A
    partial file of another policy, task, backend or longest episode is not used, and neither is a damaged one.
    """
    identity = f"{identity} {task.name} {backend} {steps or task.max_steps}"
    returns = _finished(partial_file, seeds, identity)
    rest = seeds[len(returns) :]
    parts = [list(rest[start : start + num_envs]) for start in range(0, len(rest), num_envs)]
    chunks = [partial(_play, task, backend, policy, part, steps or task.max_steps) for part in parts]
    with Progress(len(seeds), "evaluate", "episodes", len(returns)) as bar:
        for part, part_returns in zip(parts, executor.map(chunks), strict=True):
            returns += part_returns.tolist()
            if partial_file is not None:
                content = {"identity": identity, "seeds": list(seeds), "returns": returns}
                write_json(partial_file, content, checksum=True)
            bar.advance(len(part), mean=float(np.mean(returns)))
    return np.array(returns)


def _play(
    task: Task, backend: str, policy: PolicyFor, seeds: Sequence[int], steps: int, environments: Environments
) -> np.ndarray:
    env = environments.of(task, len(seeds), backend)
    return rollout(task, env, policy(seeds), seeds, steps).returns


def _finished(path: Path | None, seeds: Sequence[int], identity: str) -> list[float]:
    if path is None or not path.exists():
        return []
    try:
        content = read_json(path, checksum=True)
        returns = [float(value) for value in content["returns"]]
        if not np.isfinite(returns).all() or len(returns) > len(content["seeds"]):
            raise ValueError
        same = content["identity"] == identity and content["seeds"][: len(returns)] == list(seeds[: len(returns)])
    except (UserError, KeyError, TypeError, ValueError, OverflowError):
        say(f"{path} is damaged and not used; the evaluation starts anew")
        return []
    return returns[: len(seeds)] if same else []


def statistics(returns: np.ndarray) -> dict[str, Any]:
    """mean, sd (of the sample; 0 for one episode), median and ci95 (normal interval of the mean) of returns (N,)."""
    sd = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    half = 1.96 * sd / np.sqrt(len(returns))
    mean = float(returns.mean())
    return {"mean": mean, "sd": sd, "median": float(np.median(returns)), "ci95": [mean - half, mean + half]}


def report(task: str, agent: str, backend: str, seeds: Sequence[int], returns: np.ndarray) -> dict[str, Any]:
    """The content of ``--json``: task, agent, backend, seeds, returns, mean, sd, median, ci95."""
    content = {
        "task": task,
        "agent": agent,
        "backend": backend,
        "seeds": list(seeds),
        "returns": returns.tolist(),
    }
    return content | statistics(returns)


def print_scores(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table of results; rows: what :func:`report` returned, by the name of the policy."""
    from rich.table import Table

    table = Table()
    # Long paths are wrapped, so that numbers are not.
    table.add_column("agent", overflow="fold")
    for column in ("mean", "sd", "median", "95% interval", "episodes"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    for name, row in rows.items():
        low, high = row["ci95"]
        numbers = [f"{row[key]:.1f}" for key in ("mean", "sd", "median")]
        table.add_row(name, *numbers, f"{low:.1f} to {high:.1f}", f"{len(row['returns']):,}", row["backend"])
    console().print(table)
