"""Episodes that an agent plays, as ``.npz`` files with what it saw, thought and did.

Legend: T actions of an episode, Z latent, H hidden.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.agent import Agent, AgentPolicy
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import array, read_json, write_json
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.collect import Recorder
from worldmodels.data.exchange.archive import Archive
from worldmodels.data.exchange.npz import npz_path, write_episode
from worldmodels.data.growing import GrowingNumbers
from worldmodels.evaluation import longest
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import rollout
from worldmodels.tasks.base import Observations, check_backend

_MANIFEST = "sample.json"
_TOGETHER = 8
"""Episodes of a chunk, which are played together and written when all of them have ended."""


def sample_episodes(
    executor: Executor, agent: Agent, directory: Path, count: int, seed: int = 1, backend: str = "", steps: int = 0
) -> int:
    """Let the agent play ``count`` episodes into ``directory``, a file for each; returns how many were played now.

    seed: from which those of the episodes follow; backend: of the world (empty: the task's reference backend); steps:
    the longest episode (0: the task's limit). A file has the arrays of the format npz, and z (T, Z) and h (T, H): what
    C saw at each action, float32. The same call continues where it was stopped, also with a larger ``count``; files in
    the directory that were sampled in another way are a :class:`UserError`.
    """
    task, backend = agent.task, backend or agent.task.reference_backend
    check_backend(task, backend)
    steps = longest(task, steps)
    about = {"task": task.name, "agent": agent.digest(), "backend": backend, "seed": seed, "steps": steps}
    _begin(directory, about)
    # Always whole chunks, so that episodes do not depend on how many were asked for.
    seeds = episode_seeds("play", seed, -(-count // _TOGETHER) * _TOGETHER)
    left = [
        first
        for first in range(0, len(seeds), _TOGETHER)
        if not all(_complete(npz_path(directory, index)) for index in range(first, min(first + _TOGETHER, count)))
    ]
    done = count - sum(min(first + _TOGETHER, count) - first for first in left)
    chunks = [
        partial(_play, agent, backend, seeds[first : first + _TOGETHER], steps, directory, first, count)
        for first in left
    ]
    with Progress(count, "sample", "episodes", done) as bar:
        for first, mean in zip(left, executor.map(chunks), strict=True):
            bar.advance(min(first + _TOGETHER, count) - first, **{"return": mean})
    return count - done


def _begin(directory: Path, about: dict[str, Any]) -> None:
    """Note in a new directory what is sampled there, or check that it is the same as before."""
    manifest = directory / _MANIFEST
    if manifest.exists():
        before = read_json(manifest)
        differing = [name for name in about if not isinstance(before, dict) or before.get(name) != about[name]]
        if differing:
            raise UserError(
                f"{directory} holds episodes of another {' and '.join(differing)}; choose another folder, or give the "
                "same options as before"
            )
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not an empty folder; choose another one for the episodes")
    write_json(manifest, about)


def _complete(path: Path) -> bool:
    """Whether the file of an episode is there and whole; a damaged one is reported, and will be written again."""
    if not path.exists():
        return False
    try:
        with Archive(path) as archive:
            for name in ("action", "reward", "done", "z", "h"):
                archive.read(name)
            for _ in archive.blocks("obs", 1024):
                pass
        return True
    except Exception:  # zip, its codecs and NumPy each raise their own kinds
        say(f"{path} is damaged; its episode is played again")
        return False


class _Thoughts:
    """An observer that records episodes with the z and h on which C acted."""

    def __init__(self, agent: Agent, policy: AgentPolicy, count: int, steps: int) -> None:
        self.recorder = Recorder(agent.task, count, steps)
        self._policy, self._h = policy, np.zeros((count, agent.memory.hidden_size), np.float32)
        self._z_record = GrowingNumbers(count, agent.vision.latent_size)
        self._h_record = GrowingNumbers(count, agent.memory.hidden_size)

    def start(self, observations: Observations) -> None:
        self.recorder.start(observations)

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        now = self.recorder.lengths[rows]
        self._z_record.put(rows, now, array(self._policy.latents)[rows])
        self._h_record.put(rows, now, self._h[rows])
        self._h[rows] = array(self._policy.state[0])[rows]  # of the next step: C acts before M follows
        self.recorder.step(rows, actions, rewards, ended, after)

    def of(self, row: int, steps: int) -> dict[str, np.ndarray]:
        """z (T, Z) and h (T, H) of a row, by their names."""
        return {"z": self._z_record.of(row, steps), "h": self._h_record.of(row, steps)}


def _play(
    agent: Agent,
    backend: str,
    seeds: Sequence[int],
    steps: int,
    directory: Path,
    first: int,
    count: int,
    environments: Environments,
) -> float:
    """Play a chunk and write its episodes, the first of which has the index ``first``; returns their mean return."""
    env = environments.of(agent.task, len(seeds), backend)
    policy = agent.policy(len(seeds), seeds=seeds)
    thoughts = _Thoughts(agent, policy, len(seeds), steps)
    returns = rollout(agent.task, env, policy, seeds, steps, observer=thoughts).returns
    for row, episode in enumerate(thoughts.recorder.episodes(seeds, backend)):
        if first + row < count:
            write_episode(npz_path(directory, first + row), episode, **thoughts.of(row, len(episode.actions)))
    return float(returns.mean())
