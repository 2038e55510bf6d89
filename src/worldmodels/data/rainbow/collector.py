"""The collector whose policy, a Rainbow DQN, learns from the episodes that it plays."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from gymnasium import spaces

from worldmodels.core.errors import UserError
from worldmodels.data.collect import Recorder
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.data.rainbow.learner import Learner
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.rollouts import rollout
from worldmodels.tasks import Task


class RainbowCollector:
    """Plays one shard after the other and saves the learner's state beside them.

    Every shard begins with the state that was saved after the shard before and with a replay buffer refilled from
    stored episodes, so that a collection that was killed and resumed has the same episodes as one that was not.
    steps: the most steps that all episodes can have together.
    """

    def __init__(
        self, executor: Executor, task: Task, store: EpisodeStore, seed: int, device: torch.device, steps: int
    ) -> None:
        self._executor, self._task, self._store = executor, task, store
        self._seed, self._device, self._steps = seed, device, steps

    @staticmethod
    def check(task: Task) -> None:
        """Raise :class:`UserError` for a task without a finite number of actions."""
        if not isinstance(task.action_space, spaces.Discrete):
            raise UserError(
                f"expected a discrete action space for the policy rainbow, {task.name} has {task.action_space}; "
                "choose another policy"
            )
        if task.action_space.start != 0:
            raise UserError(
                f"expected actions from 0 on for the policy rainbow, those of {task.name} begin with "
                f"{task.action_space.start}; choose another policy"
            )

    def record(self, index: int, backend: str, seeds: Sequence[int], steps: int) -> list[Episode]:
        """The episodes of shard ``index``; earlier shards must be stored."""
        state = self._path(index - 1) if index else None
        if state is not None and not state.exists():
            self._learn_again(index - 1)

        before, key = [self._store.shard_path(earlier) for earlier in range(index)], [self._seed, index]
        learner = partial(Learner, key=key, device=self._device, steps=self._steps, before=before, state=state)
        play = partial(_play, self._task, backend, learner, seeds, steps, self._path(index))
        (episodes,) = self._executor.map([play])
        for earlier in range(index - 1):
            self._path(earlier).unlink(missing_ok=True)
        return episodes

    def _learn_again(self, index: int) -> None:
        """Play a stored shard once more, because the state that was saved after it is lost."""
        shard = Shard(self._store.shard_path(index))
        self.record(index, shard.renderer, [int(seed) for seed in shard.seeds], int(shard.lengths.max()))

    def finish(self) -> None:
        """Remove the saved states."""
        for path in self._store.directory.glob("rainbow-*.safetensors"):
            path.unlink()

    def _path(self, index: int) -> Path:
        return self._store.directory / f"rainbow-{index:05d}.safetensors"


def _play(
    task: Task,
    backend: str,
    learner_for: Callable[[Task, Recorder, Sequence[int]], Learner],
    seeds: Sequence[int],
    steps: int,
    state_file: Path,
    environments: Environments,
) -> list[Episode]:
    """Play the episodes of a shard and save the learner's state after it in ``state_file``."""
    env, recorder = environments.of(task, len(seeds), backend), Recorder(task, len(seeds), steps)
    learner = learner_for(task, recorder, seeds)
    rollout(task, env, learner, seeds, steps, observer=learner)
    learner.save(state_file)
    return recorder.episodes(seeds, backend)
