"""Scores of policies on fresh episodes: mean, standard deviation, median and a 95% confidence interval."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import read_json, write_json
from worldmodels.core.intervals import half_width, share_interval
from worldmodels.core.numbers import score_text
from worldmodels.core.progress import Progress
from worldmodels.core.provenance import provenance, versions
from worldmodels.core.terminal import console
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import Restartable, Rollouts, rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import PolicyFor, check_backend

_CPU = torch.device("cpu")
_COLUMNS: dict[str, type[Any]] = {"returns": float, "lengths": int, "terminated": bool, "last_rewards": float}
"""What is kept of every episode of an unfinished evaluation."""


def agent_policy(agent: Agent) -> PolicyFor:
    """The agent as the policy of every episode, for :func:`evaluate`."""
    return lambda seeds: agent.policy(len(seeds), seeds=seeds)


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
    device: torch.device = _CPU,
) -> Rollouts:
    """The results of one episode per seed, from which :func:`report` makes a score.

    num_envs: episodes that are played together; steps: longest episode (0, or more than the task's limit: that limit);
    partial_file: a JSON file that keeps the finished episodes, so that a killed evaluation can continue; identity: a
    text for the policy; device: that of its networks. A partial file is not used if it is damaged, or if the policy,
    the task, the longest episode or one of the :func:`conditions` is another one.
    """
    steps = longest(task, steps)
    identity = json.dumps([identity, task.identity, steps, conditions(task, backend, device)])
    done = _stored(partial_file, seeds, identity)
    before = len(done.returns)
    # Divided as if nothing was finished, so that an evaluation that goes on has the same batches.
    size = max(1, -(-len(seeds) // max(1, executor.divide(len(seeds), num_envs))))
    parts = [list(seeds[max(start, before) : start + size]) for start in range(0, len(seeds), size)]
    parts = [part for part in parts if part]
    chunks = [partial(_play, task, backend, policy, part, steps) for part in parts]
    with Progress(len(seeds), "evaluate", "episodes", before) as bar:
        for part, played in zip(parts, executor.map(chunks), strict=True):
            done = Rollouts.joined([done, played])
            if partial_file is not None:
                content = {"identity": identity, "seeds": list(seeds)}
                content |= {item.name: getattr(done, item.name).tolist() for item in fields(done)}
                write_json(partial_file, content, checksum=True)
            bar.advance(len(part), mean=float(np.mean(done.returns)))
    return done


def _play(
    task: Task, backend: str, policy: PolicyFor, seeds: Sequence[int], steps: int, environments: Environments
) -> Rollouts:
    chosen = policy(seeds)
    env = environments.of(task, len(seeds), backend, refill=isinstance(chosen, Restartable))
    return rollout(task, env, chosen, seeds, steps)


def _stored(path: Path | None, seeds: Sequence[int], identity: str) -> Rollouts:
    """The episodes in a partial file; none if there is no such file, or if it cannot be used."""
    nothing = Rollouts(**{name: np.zeros(0, kind) for name, kind in _COLUMNS.items()})
    if path is None or not path.exists():
        return nothing
    try:
        content = read_json(path, checksum=True)
        count = len(content["returns"])
        same = content["identity"] == identity and content["seeds"][:count] == list(seeds[:count])
        if "lengths" not in content:  # of a version that kept nothing but returns
            same, content = False, content | {name: content["returns"] for name in _COLUMNS}
        columns = {name: np.array([kind(value) for value in content[name]], kind) for name, kind in _COLUMNS.items()}
        equally_long = {len(column) for column in columns.values()} == {count}
        finite = all(np.isfinite(column).all() for column in columns.values())
        if not equally_long or not finite or count > len(content["seeds"]):
            raise ValueError
    except (UserError, KeyError, TypeError, ValueError, OverflowError):
        say(f"{path} is damaged and not used; the evaluation starts anew")
        return nothing
    return Rollouts(**columns).of(np.arange(min(count, len(seeds)))) if same else nothing


def longest(task: Task, steps: int) -> int:
    """The longest episode in steps, for a setting of which 0 means the task's limit."""
    return min(steps or task.max_steps, task.max_steps)


def conditions(task: Task, backend: str, device: torch.device) -> dict[str, str]:
    """What else must be equal for scores to be comparable: the backend, the device, and the versions of packages."""
    check_backend(task, backend)
    packages = versions(task.worlds[backend].requires)
    return {
        "backend": backend,
        "device": device.type,
        "versions": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }


def statistics(returns: np.ndarray) -> dict[str, Any]:
    """mean, sd, median and ci95 of returns (N,).

    sd: of the sample; ci95: [low, high], the 95% interval of the mean by Student's t; both are None for one episode.
    """
    mean = float(returns.mean())
    sd = float(returns.std(ddof=1)) if len(returns) > 1 else None
    half = half_width(sd, len(returns))
    interval = None if half is None else [mean - half, mean + half]
    return {"mean": mean, "sd": sd, "median": float(np.median(returns)), "ci95": interval}


def report(
    task: Task,
    agent: str,
    backend: str,
    seeds: Sequence[int],
    episodes: Rollouts | np.ndarray,
    steps: int = 0,
    device: torch.device = _CPU,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``--json``: what was scored and how, its returns and their :func:`statistics`.

    agent: the name of the policy; episodes: what :func:`evaluate` returned, or returns alone; steps: the
    longest episode, as for :func:`evaluate`; origin: what is known of the agent's run of the keys run (its name),
    preset, round and seed. In the result, run_seed is that seed; env: options of the environment, if there are any;
    seeds are those of the episodes; cut_short says whether episodes were shorter than the task's limit, so that the
    mean is no score; made_with is the :func:`provenance`. If the task can tell more of episodes than their returns,
    facts holds their steps and :meth:`Task.episode_facts`. If it has a goal, finished says how many episodes reached
    it: goal (its name), count, share and ci95 (Wilson's interval of the share).
    """
    origin, returns = origin or {}, episodes.returns if isinstance(episodes, Rollouts) else episodes
    content = {
        "task": task.name,
        "agent": agent,
        "run": origin.get("run"),
        "preset": origin.get("preset"),
        "round": origin.get("round"),
        "run_seed": origin.get("seed"),
        "backend": backend,
        "device": device.type,
        "episodes": len(returns),
        "steps": longest(task, steps),
        "cut_short": longest(task, steps) < task.max_steps,
    }
    if task.options:
        content["env"] = dict(task.options)
    content |= statistics(returns)
    content |= {"seeds": list(seeds), "returns": returns.tolist()}
    if isinstance(episodes, Rollouts):
        content |= _more(task, episodes)
    return content | {"made_with": provenance(device, task.worlds[backend].requires)}


def _more(task: Task, episodes: Rollouts) -> dict[str, Any]:
    """The keys facts and finished of :func:`report`, as far as the task can tell them."""
    facts = episodes.facts(task)
    if not facts:
        return {}
    content: dict[str, Any] = {"facts": {"steps": episodes.lengths.tolist()}}
    content["facts"] |= {name: values.tolist() for name, values in facts.items()}
    if task.goal:
        count, total = int(facts["finished"].sum()), len(episodes.returns)
        interval = list(share_interval(count, total))
        content["finished"] = {"goal": task.goal, "count": count, "share": count / total, "ci95": interval}
    return content


def finished_text(row: Mapping[str, Any], interval: bool = True) -> str:
    """How many episodes of a result of :func:`report` reached the goal: "58% (48% to 67%)"; empty if unknown."""
    found = row.get("finished")
    if not isinstance(found, Mapping):
        return ""
    bounds = found.get("ci95")
    numbers = [found.get("share"), *(bounds if isinstance(bounds, list) and len(bounds) == 2 else [None])]
    if not all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers):
        return ""
    share, low, high = numbers
    return f"{share:.0%} ({low:.0%} to {high:.0%})" if interval else f"{share:.0%}"


def goal_of(row: Mapping[str, Any]) -> str:
    """What episodes that reached the goal are called in a result of :func:`report`; empty if that is unknown."""
    return str(row["finished"].get("goal") or "finished") if finished_text(row) else ""


def limit_note(row: Mapping[str, Any]) -> str:
    """What a table or plot must say of a result of :func:`report` whose episodes were cut short; empty for others."""
    return f"cut short at {row['steps']:,} steps: not a score" if row.get("cut_short") else ""


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
        mean, ends = row["mean"], row["ci95"]
        numbers = ["n/a" if row[key] is None else score_text(row[key], mean) for key in ("mean", "sd", "median")]
        interval = "n/a" if ends is None else " to ".join(score_text(end, mean) for end in ends)
        label = "\n".join(filter(None, (name, limit_note(row))))
        table.add_row(label, *numbers, interval, f"{len(row['returns']):,}", row["backend"])
    console().print(table)
    # Below the table, which would be too wide for many terminals with one column more.
    for goal in dict.fromkeys(filter(None, map(goal_of, rows.values()))):
        shares = (f"{name} {finished_text(row)}" for name, row in rows.items() if goal_of(row) == goal)
        console().print(f"{goal}: {', '.join(shares)}")
