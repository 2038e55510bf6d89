"""Scores: fresh episodes on the reference backend, with mean, sd, median and a 95% interval."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.agent import Agent
from worldmodels.core.files import read_json, write_json
from worldmodels.core.progress import Progress
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import PolicyFor


def agent_policy(agent: Agent) -> PolicyFor:
    """Every episode driven by the agent."""
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
    """Returns (len(seeds),) of one episode per seed, of at most ``steps`` (0: the task's limit), ``num_envs`` together.

    ``partial_file``: a JSON file that keeps finished episodes, so that a killed evaluation goes on; what another policy
    than ``identity`` left there is not used.
    """
    returns = _finished(partial_file, seeds, identity)
    rest = seeds[len(returns) :]
    parts = [list(rest[start : start + num_envs]) for start in range(0, len(rest), num_envs)]
    chunks = [partial(_play, task, backend, policy, part, steps or task.max_steps) for part in parts]
    with Progress(len(seeds), "evaluate", "episodes", len(returns)) as bar:
        for part, found in zip(parts, executor.map(chunks), strict=True):
            returns += found.tolist()
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
    content = read_json(path, checksum=True)
    count = len(content["returns"])
    if content["identity"] != identity or content["seeds"][:count] != list(seeds[:count]):
        return []
    return [float(value) for value in content["returns"][: len(seeds)]]


def statistics(returns: np.ndarray) -> dict[str, Any]:
    """mean, sd, median and ci95 (normal interval of the mean) of returns (N,)."""
    sd = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    half = 1.96 * sd / np.sqrt(len(returns))
    mean = float(returns.mean())
    return {"mean": mean, "sd": sd, "median": float(np.median(returns)), "ci95": [mean - half, mean + half]}


def report(task: str, agent: str, backend: str, seeds: Sequence[int], returns: np.ndarray) -> dict[str, Any]:
    """What ``--json`` writes: task, agent, backend, seeds, returns, mean, sd, median, ci95."""
    content = {
        "task": task,
        "agent": agent,
        "backend": backend,
        "seeds": list(seeds),
        "returns": returns.tolist(),
    }
    return content | statistics(returns)


def print_scores(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A table of results as :func:`report` makes them, by name."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    # A long path is folded before any number is.
    table.add_column("agent", overflow="fold")
    for column in ("mean", "sd", "median", "95% interval", "episodes"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    for name, row in rows.items():
        low, high = row["ci95"]
        numbers = [f"{row[key]:.1f}" for key in ("mean", "sd", "median")]
        table.add_row(name, *numbers, f"{low:.1f} to {high:.1f}", f"{len(row['returns']):,}", row["backend"])
    Console().print(table)
