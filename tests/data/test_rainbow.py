"""The Rainbow that learns while it collects: its data are aligned and allowed, it learns, and kills change nothing."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from collecting import CPU, assert_played_back, collect_with_kills, contents, pipeline
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.data.collect import Recorder
from worldmodels.data.collectors import make_collector
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.rainbow import learner as learning
from worldmodels.data.rainbow.learner import Learner
from worldmodels.data.rainbow.replay import remembered
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.rollouts import rollout
from worldmodels.tasks.base import ArrayWorld, World
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.tasks.take_cover.task import TakeCover


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learner that begins early and forgets soon."""
    small = learning.RainbowSettings(hidden=8, replay=100, first=20, batch=8, target_every=40)
    monkeypatch.setattr(learning, "SETTINGS", small)


def learner(task: Any, recorder: Recorder, seeds: Sequence[int], *before: Any, steps: int = 400) -> Learner:
    return Learner(task, recorder, seeds, [1, len(before)], CPU, steps, *before)


def played(task: Any, seeds: Sequence[int], steps: int, *before: Any) -> tuple[Learner, Recorder]:
    recorder = Recorder(task, len(seeds), steps)
    player = learner(task, recorder, seeds, *before)
    rollout(task, make_envs(task, len(seeds), "native"), player, list(seeds), steps, observer=player)
    return player, recorder


def places(row: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row]), np.array([step])


def test_its_episodes_are_aligned_and_allowed(short: BinPacking, tmp_path: Path) -> None:
    collector = make_collector(LocalExecutor(), short, "rainbow", tmp_path, 1, CPU, 240)
    for episode in collector.record(0, "native", range(8), short.max_steps):
        assert_played_back(short, episode)
    tensors, meta = load_tensors(tmp_path / "rainbow-00000.safetensors")
    assert meta["made"] == 240 and meta["updates"] == (240 - 20) // 4 and len(tensors["priorities"]) == 100
    assert len(set(tensors["priorities"].tolist())) > 50


def test_it_remembers_each_transition_as_it_was_and_the_stored_ones_alike(short: BinPacking, tmp_path: Path) -> None:
    player, recorder = played(short, range(60, 63), 30)
    store, path = EpisodeStore(tmp_path), tmp_path / "state.safetensors"
    store.write(0, recorder.episodes(range(60, 63), "native"))
    player.save(path)
    live, order = player._replay, np.arange(90)
    assert len(live) == 90
    batch = live[order]
    for place in range(90):
        step, row = divmod(place, 3)
        assert (batch.obs.obs[place] == recorder.frames(*places(row, step))[0]).all()
        assert (batch.obs_next.obs[place] == recorder.frames(*places(row, step + 1))[0]).all()
        episode = recorder.episodes(range(60, 63), "native")[row]
        assert episode.actions[step, batch.act[place]] == 1 and episode.rewards[step] == batch.rew[place]
    assert not batch.terminated.any()
    np.testing.assert_array_equal(batch.obs_next.mask, short.action_mask(batch.obs_next.obs))
    again = learner(short, Recorder(short, 2, 30), range(2), [store.shard_path(0)], path)
    twin = again._replay[order]
    for name in ("act", "rew", "terminated", "weight"):
        np.testing.assert_array_equal(getattr(twin, name), getattr(batch, name))
    np.testing.assert_array_equal(twin.obs.obs, batch.obs.obs)
    np.testing.assert_array_equal(twin.obs_next.obs, batch.obs_next.obs)
    for name, value in player._weights().items():
        torch.testing.assert_close(again._weights()[name], value, rtol=0, atol=0)


def test_only_the_last_transitions_are_remembered_and_new_ones_follow(short: BinPacking, tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path)
    for index in range(3):
        _, recorder = played(short, range(10 * index, 10 * index + 2), 30)
        store.write(index, recorder.episodes(range(10 * index, 10 * index + 2), "native"))
    parts, old = remembered([store.shard_path(index) for index in range(3)], 100, short)
    assert len(parts) == 2 and len(old.frames) == 100 and old.frames.max() == 4 * 31 - 2
    assert len(np.unique(old.frames)) == 100
    first, last = (list(Shard(store.shard_path(index)).episodes()) for index in (1, 2))
    assert old.rewards[:2].tolist() == [first[row].rewards[10] for row in (0, 1)]
    assert old.rewards[-2:].tolist() == [last[row].rewards[29] for row in (0, 1)]


@pytest.mark.parametrize("size", [{}, {"episodes": 5, "num_envs": 3}])
def test_killed_again_and_again_the_data_are_the_same(
    size: dict[str, object], short: BinPacking, tmp_path: Path
) -> None:
    whole, broken = (pipeline(tmp_path / name, "rainbow", **size) for name in ("whole", "broken"))
    whole.collect()
    collect_with_kills(broken)
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert not list(tmp_path.rglob("rainbow-*"))
    # What is deleted from a finished collection is made again, though nothing that was learnt is left.
    for index in (1, 2):
        shutil.rmtree(tmp_path / "broken" / "round-1" / "episodes" / f"shard-0000{index}.zarr")
    broken.collect()
    assert contents(tmp_path / "whole") == contents(tmp_path / "broken")
    assert not list(tmp_path.rglob("rainbow-*"))


def test_a_state_of_something_else_is_refused_in_one_line(
    short: BinPacking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player, recorder = played(short, [1], 30)
    EpisodeStore(tmp_path).write(0, recorder.episodes([1], "native"))
    player.save(tmp_path / "state.safetensors")
    monkeypatch.setattr(learning, "SETTINGS", dataclasses.replace(learning.SETTINGS, hidden=9))
    with pytest.raises(UserError, match="does not belong to this run"):
        learner(short, Recorder(short, 1, 30), [1], [tmp_path / "shard-00000.zarr"], tmp_path / "state.safetensors")


class Lamps(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """A lamp is dark or lit; pressing the button when it is lit, and not pressing it when it is dark, pays 1."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_action_space = spaces.Discrete(3)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _seen(self) -> np.ndarray:
        self._lit = np.array([stream.integers(2) for stream in self._streams])
        return np.broadcast_to(255 * self._lit[:, None, None, None], (self.num_envs, 64, 64, 3)).astype(np.uint8)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self._streams, self._step = [np.random.default_rng(one) for one in seed], 0
        return self._seen(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards = (actions == self._lit).astype(float)
        self._step += 1
        ended, cut = np.full(self.num_envs, self._step == 40), np.zeros(self.num_envs, bool)
        return self._seen(), rewards, ended, cut, {}


class LampTask(TakeCover):
    """Numbered actions that M sees as one number, and no mask."""

    max_steps = 40

    @property
    def worlds(self) -> Mapping[str, World]:
        return {"native": ArrayWorld(Lamps)}

    def frames(self, observations: np.ndarray) -> np.ndarray:
        return observations


@pytest.fixture
def decisive(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    values = {"hidden": 32, "replay": 1000, "gamma": 0.0, "highest": 2.0, "every": 2, "chance_steps": 300}
    monkeypatch.setattr(learning, "SETTINGS", dataclasses.replace(learning.SETTINGS, **values))
    yield


def test_it_learns_in_a_world_without_masks_and_across_shards(decisive: None, tmp_path: Path) -> None:
    task, store = LampTask(), EpisodeStore(tmp_path)
    player = make_collector(LocalExecutor(), task, "rainbow", tmp_path, 1, CPU, 10**6)
    returns = []
    for index in range(4):
        episodes = player.record(index, "native", range(10 * index, 10 * index + 10), 40)
        store.write(index, episodes)
        returns.append(np.mean([episode.rewards.sum() for episode in episodes]))
        assert all(episode.terminated for episode in episodes)
    # Random play earns a third of 40.
    assert returns[0] < 30 and returns[-1] > 37, returns
    _, old = remembered([store.shard_path(index) for index in range(4)], 1000, task)
    assert set(old.actions.tolist()) == {0, 1, 2} and old.ended[-10:].all() and old.ended.sum() == 30
