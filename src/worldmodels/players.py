"""Who plays the episodes that the collect stage records: the choices of ``collect.policy``."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from gymnasium import spaces

from worldmodels.agent import AGENT_FILE, Agent, load_agent, shipped_agents
from worldmodels.collecting import record_episodes
from worldmodels.errors import UserError
from worldmodels.evaluation import PolicyFor
from worldmodels.storage.episodes import Episode, EpisodeStore
from worldmodels.tasks import Task
from worldmodels.workers.kept import Kept

_KNOWN = ("exploration", "disturbed", "random")


class Player(Protocol):
    """Plays episodes, a flush at a time and in order."""

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of flush ``index``, one per seed, of at most ``steps``: the same however often it is asked."""
        ...

    def finish(self) -> None:
        """Every flush is stored: remove what only an unfinished collection needs."""
        ...


class Settled:
    """Plays by a policy that does not learn."""

    def __init__(self, task: Task, policy: PolicyFor) -> None:
        self._kept, self._policy = Kept(task), policy

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """Episodes that depend on their seeds alone."""
        return record_episodes(self._kept, backend, self._policy, seeds, steps)

    def finish(self) -> None:
        """End the environments."""
        self._kept.close()


def player_of(task: Task, policy: str, directory: Path, seed: int, device: torch.device, steps: int) -> Player:
    """The player called ``policy``; :class:`UserError` as :func:`check_policy`.

    directory: of the collect stage, where an agent is copied to and a learner keeps what it has learnt; steps: longest
    that all episodes of the stage together can be.
    """
    copy = directory / "policy" / AGENT_FILE
    if copy.exists():
        return agent_player(load_agent(copy, device.type))
    check_policy(task, policy)
    if policy == "exploration":
        return Settled(task, task.exploration)
    if policy == "disturbed":
        return Settled(task, lambda seeds: task.noisy(task.exploration(seeds), seeds))
    if policy == "random":
        return Settled(task, task.random_policy)
    if policy in task.rules:
        world, rule = task.rule(policy)
        return Settled(world, lambda seeds: world.noisy(rule(seeds), seeds))
    if policy == "rainbow":
        from worldmodels.rainbow.player import Rainbow

        return Rainbow(task, EpisodeStore(directory), seed, device, steps)
    # The run holds everything it was made from, so that it goes on without the original.
    load_agent(policy).save(copy.parent)
    return agent_player(load_agent(copy, device.type))


def agent_player(agent: Agent) -> Player:
    """The agent, with noise on its actions."""
    return Settled(agent.task, lambda seeds: agent.task.noisy(agent.policy(len(seeds)), seeds))


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
