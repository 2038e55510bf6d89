"""What the tests of collecting share: episodes played back, collect stages, and ways to kill them."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.data.config import CollectConfig
from worldmodels.data.episodes import Episode, EpisodeStore
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.config import Config
from worldmodels.run.pipeline import Pipeline
from worldmodels.tasks.bin_packing.task import BinPacking

ITEMS = 30
"""Items of an episode of the shortened bin packing."""
CPU = torch.device("cpu")


def assert_played_back(task: BinPacking, episode: Episode) -> np.ndarray:
    """The recorded actions in a fresh world give the recorded pictures and rewards; returns the states."""
    shown, state = make_envs(task, 1, "native"), task._world(1, "state")
    pictures, info = shown.reset(seed=[episode.seed])
    states = [state.reset(seed=[episode.seed])[0][0]]
    assert len(episode.actions) == task.max_steps and not episode.terminated
    for step, action in enumerate(episode.actions.argmax(axis=1)):
        assert (episode.frames[step] == pictures[0]).all() and info["action_mask"][0, action]
        pictures, rewards, *_, info = shown.step(np.array([action]))
        states.append(state.step(np.array([action]))[0][0])
        assert episode.rewards[step] == rewards[0] and episode.actions[step].sum() == 1
    assert (episode.frames[-1] == pictures[0]).all()
    return np.array(states)


def pipeline(folder: Path, policy: str, **collect: object) -> Pipeline:
    """A run of bin packing that has begun nothing; ``collect``: other settings than six short episodes and two more."""
    size: dict[str, object] = {"episodes": 6, "reference_episodes": 2, "num_envs": 2, "reference_steps": 20} | collect
    config = Config(task="bin-packing", collect=CollectConfig(backend="native", policy=policy, **size))  # type: ignore[arg-type]
    return Pipeline(Artifacts(folder, config), CPU, LocalExecutor())


def contents(folder: Path) -> dict[str, bytes]:
    """Every byte of the episodes in a run."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.zarr/**/*") if path.is_file()}


class Killed(Exception):
    """The end of the process."""


@contextlib.contextmanager
def killed_at(call: int, after: bool) -> Iterator[None]:
    """The process dies when shard ``call`` is written, or right after."""
    calls, write = [0], EpisodeStore.write

    def dying(self: EpisodeStore, index: int, episodes: Sequence[Episode]) -> None:
        calls[0] += 1
        if calls[0] == call and not after:
            raise Killed
        write(self, index, episodes)
        if calls[0] == call:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpisodeStore, "write", dying)
        yield


def collect_with_kills(pipeline: Pipeline) -> None:
    """The collect stage, killed three times."""
    for call, after in ((1, False), (2, True), (1, False)):
        with killed_at(call, after), pytest.raises(Killed):
            pipeline.collect()
    pipeline.collect()
