"""Collectors play the episodes of the collect stage; ``collect.policy`` chooses one."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from worldmodels.agent import AGENT_FILE, Agent, load_agent
from worldmodels.agent_files import shipped_names
from worldmodels.core.errors import UserError
from worldmodels.core.registry import Registry
from worldmodels.data.collect import record_episodes
from worldmodels.data.episodes import Episode, EpisodeStore
from worldmodels.data.noise import Perturbed, check_noise, noise_free_episodes
from worldmodels.execution.executor import Executor
from worldmodels.tasks import Task
from worldmodels.tasks.base import Policy, PolicyFor

IMPORTED = "imported-"
"""What the policy of imported episodes begins with; a digest of their files follows."""
_TASK_POLICIES = ("exploration", "perturbed", "random")


class Collector(Protocol):
    """Plays the episodes of the collect stage, shard by shard and in order."""

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of shard ``index``, one per seed, of at most ``steps`` steps; the same in every call."""
        ...

    def finish(self) -> None:
        """Remove files that only an unfinished collection needs; called when every shard is stored."""
        ...


COLLECTORS: Registry[Callable[[Executor, Task, EpisodeStore, int, torch.device, int], Collector]] = Registry(
    "learning policy", {"rainbow": "worldmodels.data.rainbow.collector:RainbowCollector"}, "worldmodels.collectors"
)
"""Collectors whose policy learns from the episodes that it plays, by name of the policy. Their arguments: executor,
task, store of the shards, seed, device, and the most steps that all episodes can have together. A class that
cannot play every task has a static method ``check(task)``, which raises :class:`UserError` for the others."""


class PolicyCollector:
    """Plays with a policy that does not learn, so that episodes depend on their seeds alone."""

    def __init__(self, executor: Executor, task: Task, policy: PolicyFor) -> None:
        self._executor, self._task, self._policy = executor, task, policy

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of one shard."""
        return record_episodes(self._executor, self._task, backend, self._policy, seeds, steps)

    def finish(self) -> None:
        """Nothing to do: it keeps no files."""


def make_collector(
    executor: Executor,
    task: Task,
    policy: str,
    directory: Path,
    seed: int,
    device: torch.device,
    steps: int,
    noise: float = 1.0,
    noise_free: float = 0.0,
) -> Collector:
    """The collector for the policy called ``policy``. Raises :class:`UserError` as :func:`check_policy` does.

    directory: of the collect stage, to which an agent is copied and in which a learning policy saves its state; steps:
    the most steps that all episodes of the stage can have together; noise, noise_free: of an agent, see
    :func:`agent_collector`.
    """
    parts = _parts(task, policy)
    if len(parts) > 1:
        return _Mixed(
            [make_collector(executor, task, part, directory, seed, device, steps, noise, noise_free) for part in parts]
        )
    if policy in COLLECTORS.names():
        check_policy(task, policy)
        return COLLECTORS.get(policy)(executor, task, EpisodeStore(directory), seed, device, steps)
    if policy in task.rules:
        world, rule = task.rule(policy)
        return PolicyCollector(executor, world, lambda seeds: world.perturbed(rule(seeds), seeds))
    policies: dict[str, PolicyFor] = {
        "exploration": task.exploration,
        "perturbed": lambda seeds: task.perturbed(task.exploration(seeds), seeds),
        "random": task.random_policy,
    }
    if policy in policies:
        return PolicyCollector(executor, task, policies[policy])
    # The run keeps a copy of the agent, so that it can be resumed without the original.
    copy = directory / "policy" / AGENT_FILE
    if not copy.exists():
        check_policy(task, policy)
        load_agent(policy).save(copy.parent)
    return agent_collector(executor, load_agent(copy, device.type), noise, noise_free)


class _Mixed:
    """Several collectors that play the shards in turn."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        return self._collectors[index % len(self._collectors)].record(index, backend, seeds, steps)

    def finish(self) -> None:
        for collector in self._collectors:
            collector.finish()


class _AgentCollector:
    """Plays with an agent whose noise is weaker than usual, or missing in some episodes."""

    def __init__(self, executor: Executor, agent: Agent, noise: float, noise_free: float) -> None:
        self._executor, self._agent, self._noise, self._noise_free = executor, agent, noise, noise_free

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        noise_free = noise_free_episodes(seeds, self._noise_free)
        policy = partial(_perturbed_agent, self._agent, self._noise, noise_free)
        return record_episodes(self._executor, self._agent.task, backend, policy, seeds, steps)

    def finish(self) -> None:
        pass


def _perturbed_agent(agent: Agent, noise: float, noise_free: frozenset[int], seeds: Sequence[int]) -> Policy:
    return Perturbed(agent, seeds, noise, noise_free)


def agent_collector(executor: Executor, agent: Agent, noise: float = 1.0, noise_free: float = 0.0) -> Collector:
    """A collector that plays with the agent, with noise on its actions.

    noise: its strength, 1 for that of :meth:`Task.perturbed`; noise_free: the fraction of episodes without any. Raises
    :class:`UserError` for a lower strength in a task whose actions are not continuous.
    """
    task = agent.task
    check_noise(task, noise)
    if noise < 1 or noise_free > 0:
        return _AgentCollector(executor, agent, noise, noise_free)
    return PolicyCollector(executor, task, lambda seeds: task.perturbed(agent.policy(len(seeds), seeds=seeds), seeds))


def plays_agent(task: Task, policy: str) -> bool:
    """Whether the policy is an agent, or one of the policies that take turns is."""
    others = (*_TASK_POLICIES, *task.rules, *COLLECTORS.names())
    return any(part not in others and not part.startswith(IMPORTED) for part in _parts(task, policy))


def _parts(task: Task, policy: str) -> list[str]:
    """The policies of a mixture such as exploration+take-cover; a path that holds a plus is one policy."""
    parts = policy.split("+")
    return parts if any(part in (*_TASK_POLICIES, *task.rules) for part in parts) else [policy]


def check_policy(task: Task, policy: str) -> None:
    """Raise :class:`UserError` for a policy that does not exist, is not for this task, or needs a missing package."""
    parts = _parts(task, policy)
    if len(parts) > 1:
        for part in parts:
            check_policy(task, part)
        if learning := [part for part in parts if part in COLLECTORS.names()]:
            raise UserError(f"{learning[0]} learns from what it plays and cannot share the episodes; got {policy!r}")
        agents = [part for part in parts if part not in (*_TASK_POLICIES, *task.rules)]
        if len(agents) > 1:
            raise UserError(f"expected at most one agent among the policies of {policy!r}, got {' and '.join(agents)}")
        return
    if policy in (*_TASK_POLICIES, *task.rules):
        return
    if policy.startswith(IMPORTED):
        raise UserError(
            "these episodes were imported and cannot be recorded again; import them again with the same command: "
            f"worldmodels import episodes DIR --task {task.name} --run RUN"
        )
    if policy in COLLECTORS.names():
        check = getattr(COLLECTORS.get(policy), "check", None)
        if check is not None:
            check(task)
        return
    if policy not in shipped_names() and not (policy and Path(policy).exists()):
        names = ", ".join((*_TASK_POLICIES, *task.rules, *COLLECTORS.names()))
        raise UserError(
            f"unknown policy {policy!r} for {task.name}; choose {names}, a shipped agent or an agent's path"
        )
    agent = load_agent(policy)
    if agent.task.identity != task.identity:
        raise UserError(f"expected an agent for {task.identity} as policy, {policy} is one for {agent.task.identity}")
