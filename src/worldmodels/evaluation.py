"""Scores: fresh episodes on the reference backend, with mean, sd, median and a 95% interval."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.agent import Agent
from worldmodels.errors import UserError
from worldmodels.progress import Progress
from worldmodels.rollouts import Policy, rollout
from worldmodels.storage.atomic import read_json, write_json
from worldmodels.tasks import Task

PolicyFor = Callable[[Sequence[int]], Policy]
"""A fresh policy for the environments with these seeds."""


def agent_policy(agent: Agent) -> PolicyFor:
    """Every episode driven by the agent."""
    return lambda seeds: agent.policy(len(seeds))


def evaluate(
    task: Task, policy: PolicyFor, backend: str, seeds: Sequence[int], lockstep: int, partial: Path | None = None
) -> np.ndarray:
    """Returns (len(seeds),) of one whole episode per seed.

    ``partial``: a JSON file that keeps finished episodes, so that a killed evaluation goes on.
    """
    returns = _finished(partial, seeds)
    with Progress(len(seeds), "evaluate", "episodes", len(returns)) as bar:
        env = None
        try:
            while len(returns) < len(seeds):
                chunk = list(seeds[len(returns) : len(returns) + lockstep])
                if env is None or env.num_envs != len(chunk):
                    if env is not None:
                        env.close()
                    env = task.make(len(chunk), backend)
                returns += rollout(env, policy(chunk), chunk, task.max_steps).returns.tolist()
                if partial is not None:
                    write_json(partial, {"seeds": list(seeds), "returns": returns}, checksum=True)
                bar.advance(len(chunk), mean=float(np.mean(returns)))
        finally:
            if env is not None:
                env.close()
    return np.array(returns)


def _finished(partial: Path | None, seeds: Sequence[int]) -> list[float]:
    if partial is None or not partial.exists():
        return []
    content = read_json(partial, checksum=True)
    if content["seeds"][: len(content["returns"])] != list(seeds[: len(content["returns"])]):
        raise UserError(f"{partial} belongs to other seeds; delete it and evaluate again")
    return [float(value) for value in content["returns"]]


def statistics(returns: np.ndarray) -> dict[str, Any]:
    """mean, sd, median and ci95 (normal interval of the mean) of returns (N,)."""
    sd = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    half = 1.96 * sd / np.sqrt(len(returns))
    mean = float(returns.mean())
    return {"mean": mean, "sd": sd, "median": float(np.median(returns)), "ci95": [mean - half, mean + half]}


def report(task: str, agent: str, backend: str, seeds: Sequence[int], returns: np.ndarray) -> dict[str, Any]:
    """What ``--json`` writes: task, agent, backend, seeds, returns, mean, sd, median, ci95."""
    content = {"task": task, "agent": agent, "backend": backend, "seeds": list(seeds), "returns": returns.tolist()}
    return content | statistics(returns)
