"""Who plays the episodes that the collect stage records: the choices of ``collect.policy``."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from gymnasium import spaces

from worldmodels.agent import AGENT_FILE, Agent, load_agent, shipped_agents
from worldmodels.core.errors import UserError
from worldmodels.core.registry import Registry
from worldmodels.data.collect import record_episodes
from worldmodels.data.episodes import Episode, EpisodeStore
from worldmodels.execution.executor import Executor
from worldmodels.tasks import Task
from worldmodels.tasks.base import PolicyFor

_KNOWN = ("exploration", "perturbed", "random")


class Collector(Protocol):
    """Plays episodes, a shard at a time and in order."""

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of shard ``index``, one per seed, of at most ``steps``: the same however often it is asked."""
        ...

    def finish(self) -> None:
        """Every shard is stored: remove what only an unfinished collection needs."""
        ...


COLLECTORS: Registry[Callable[[Executor, Task, EpisodeStore, int, torch.device, int], Collector]] = Registry(
    "learning policy", {"rainbow": "worldmodels.data.rainbow.collector:RainbowCollector"}, "worldmodels.collectors"
)
"""Collectors whose policy learns from its episodes, by the policy's name. They are made of an executor, a task, where
shards are stored, a seed, a device, and the longest that all episodes together can be, in steps."""


class PolicyCollector:
    """Plays by a policy that does not learn, so that episodes depend on their seeds alone."""

    def __init__(self, executor: Executor, task: Task, policy: PolicyFor) -> None:
        self._executor, self._task, self._policy = executor, task, policy

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of one shard."""
        return record_episodes(self._executor, self._task, backend, self._policy, seeds, steps)

    def finish(self) -> None:
        """Nothing is kept."""


def make_collector(
    executor: Executor, task: Task, policy: str, directory: Path, seed: int, device: torch.device, steps: int
) -> Collector:
    """The collector for the policy called ``policy``; :class:`UserError` as :func:`check_policy`.

    directory: of the collect stage, where an agent is copied to and a learner keeps what it has learnt; steps: longest
    that all episodes of the stage together can be.
    """
    copy = directory / "policy" / AGENT_FILE
    if copy.exists():
        return agent_collector(executor, load_agent(copy, device.type))
    check_policy(task, policy)
    if policy in COLLECTORS.names():
        return COLLECTORS.get(policy)(executor, task, EpisodeStore(directory), seed, device, steps)
    if policy in task.rules:
        world, rule = task.rule(policy)
        return PolicyCollector(executor, world, lambda seeds: world.perturbed(rule(seeds), seeds))
    known: dict[str, PolicyFor] = {
        "exploration": task.exploration,
        "perturbed": lambda seeds: task.perturbed(task.exploration(seeds), seeds),
        "random": task.random_policy,
    }
    if policy in known:
        return PolicyCollector(executor, task, known[policy])
    # The run holds everything it was made from, so that it goes on without the original.
    load_agent(policy).save(copy.parent)
    return agent_collector(executor, load_agent(copy, device.type))


def agent_collector(executor: Executor, agent: Agent) -> Collector:
    """The agent, with noise on its actions."""
    task = agent.task
    return PolicyCollector(executor, task, lambda seeds: task.perturbed(agent.policy(len(seeds)), seeds))


def check_policy(task: Task, policy: str) -> None:
    """Refuse, in one line, a policy that there is not, that is not for this task, or whose package is missing."""
    if policy in (*_KNOWN, *task.rules):
        return
    if policy == "rainbow":
        if not isinstance(task.action_space, spaces.Discrete):
            raise UserError(
                f"expected a world with numbered actions for the policy rainbow, {task.name} has {task.action_space}; "
                "choose another policy"
            )
        if importlib.util.find_spec("tianshou") is None:
            raise UserError('the policy rainbow needs the missing tianshou; pip install "worldmodels[rl]"')
    if policy in COLLECTORS.names():
        return
    if policy not in shipped_agents() and not (policy and Path(policy).exists()):
        learner = ("rainbow",) if isinstance(task.action_space, spaces.Discrete) else ()
        known = ", ".join((*_KNOWN, *task.rules, *learner))
        raise UserError(
            f"unknown policy {policy!r} for {task.name}; choose {known}, a shipped agent or an agent's path"
        )
    agent = load_agent(policy)
    if agent.task.name != task.name:
        raise UserError(f"expected an agent for {task.name} as policy, {policy} is one for {agent.task.name}")
