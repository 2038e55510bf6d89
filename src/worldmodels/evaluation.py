"""Scores: fresh episodes on the reference backend, with mean, sd, median and a 95% interval."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.agent import Agent
from worldmodels.progress import Progress
from worldmodels.rollouts import Policy, rollout
from worldmodels.storage.atomic import read_json, write_json
from worldmodels.tasks import Task
from worldmodels.workers.kept import Kept

PolicyFor = Callable[[Sequence[int]], Policy]
"""A fresh policy for the environments with these seeds."""


def agent_policy(agent: Agent) -> PolicyFor:
    """Every episode driven by the agent."""
    return lambda seeds: agent.policy(len(seeds))


def evaluate(
    task: Task,
    policy: PolicyFor,
    backend: str,
    seeds: Sequence[int],
    lockstep: int,
    steps: int = 0,
    partial: Path | None = None,
    identity: str = "",
) -> np.ndarray:
    """Returns (len(seeds),) of one episode per seed, of at most ``steps`` (0: the task's limit).

    ``partial``: a JSON file that keeps finished episodes, so that a killed evaluation goes on; what another policy than
    ``identity`` left there is not used.
    """
    returns = _finished(partial, seeds, identity)
    with (
        Progress(len(seeds), "evaluate", "episodes", len(returns)) as bar,
        contextlib.closing(Kept(task)) as kept,
    ):
        while len(returns) < len(seeds):
            chunk = list(seeds[len(returns) : len(returns) + lockstep])
            play = functools.partial(_play, policy, chunk, steps or task.max_steps)
            returns += kept.retrying(len(chunk), backend, play).tolist()
            if partial is not None:
                content = {"identity": identity, "seeds": list(seeds), "returns": returns}
                write_json(partial, content, checksum=True)
            bar.advance(len(chunk), mean=float(np.mean(returns)))
    return np.array(returns)


def _play(policy: PolicyFor, seeds: Sequence[int], steps: int, env: VectorEnv) -> np.ndarray:
    return rollout(env, policy(seeds), seeds, steps).returns


def _finished(partial: Path | None, seeds: Sequence[int], identity: str) -> list[float]:
    if partial is None or not partial.exists():
        return []
    content = read_json(partial, checksum=True)
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
