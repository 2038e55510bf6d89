"""Long episodes in little memory: frames that are compressed while they are recorded, and what a process takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from worldmodels.core.chunks import FRAME_CHUNK
from worldmodels.data import growing
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.data.growing import GrowingFrames, PackedFrames, packed


def filled(lengths: list[int]) -> tuple[GrowingFrames, list[np.ndarray]]:
    stream = np.random.default_rng(3)
    frames = [stream.integers(0, 3, (length, 64, 64, 3), dtype=np.uint8) for length in lengths]
    memory = GrowingFrames(len(lengths))
    for step in range(max(lengths)):
        rows = np.array([row for row, length in enumerate(lengths) if step < length])
        memory.put(rows, np.full(len(rows), step), np.stack([frames[row][step] for row in rows]))
    return memory, frames


def test_long_rows_are_compressed_and_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "_PACKED_FROM", 2)
    lengths = [FRAME_CHUNK // 2, 2 * FRAME_CHUNK, 5 * FRAME_CHUNK + 3]
    memory, frames = filled(lengths)
    for row, length in enumerate(lengths):
        found = memory.of(row, length)
        assert isinstance(found, PackedFrames) == (row == 2) and found.shape == frames[row].shape
        assert (np.asarray(found) == frames[row]).all()
        assert (found[length - 1] == frames[row][-1]).all()
    assert found.nbytes < frames[2].nbytes / 2
    for part in (
        slice(0, 1),
        slice(60, 70),
        slice(63, 64),
        slice(300, None),
        slice(None),
        slice(9, 9),
        slice(None, None, 7),
    ):
        assert np.array_equal(found[part], frames[2][part])
    steps = np.array([3, 100, 320])
    assert (
        memory.at(np.arange(3), np.array([3, 100, 320])) == np.stack([frames[r][s] for r, s in enumerate(steps)])
    ).all()


def test_compressed_episodes_are_stored_like_others(tmp_path: Path) -> None:
    stream, count = np.random.default_rng(1), 70
    frames = stream.integers(0, 9, (count, 64, 64, 3), dtype=np.uint8)
    whole = np.zeros((2 * FRAME_CHUNK, 64, 64, 3), np.uint8)
    whole[:count] = frames
    rest = np.zeros((count - 1, 2), np.float32), np.ones(count - 1, np.float32), True, 1, "gymnasium"
    both = [Episode(frames, *rest), Episode(PackedFrames([packed(one) for one in np.split(whole, 2)], count), *rest)]  # type: ignore[arg-type]
    store = EpisodeStore(tmp_path)
    store.write(0, both)
    first, second = Shard(store.shard_path(0)).episodes()
    assert (first.frames == second.frames).all() and (second.frames == frames).all()


MEASURE = """
import json, resource, sys
from pathlib import Path
import torch
from worldmodels.core.progress import Progress
from worldmodels.data.collect import _record
from worldmodels.data.encode import dream_starts, encode_shard
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.agent import untrained_agent
from worldmodels.evolution.subspace import component_space, recorded_inputs
from worldmodels.execution.environments import Environments
from worldmodels.execution.process_worker import Activity
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.train import SequenceSampler
from worldmodels.rollouts import rollout
from worldmodels.tasks import get_task
from worldmodels.vision.base import make_vision

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def work(length, folder):
    task = get_task("gym:gym_worlds:toy/Long-v0", {"length": length, "max_episode_steps": length})
    environments = Environments(Activity())
    episodes = _record(task, "gymnasium", task.exploration, [1, 2], length, environments)
    assert [len(episode.actions) for episode in episodes] == [length, length]
    store = EpisodeStore(Path(folder))
    store.write(length, episodes)
    del episodes
    shard = Shard(store.shard_path(length))
    agent = untrained_agent(task, make_vision("conv-vae", 4), MDNRNN(4, task.action_size, 16, 2, True, True, 0))
    with Progress(shard.num_frames, "encode", "frames") as bar:
        latents = encode_shard(agent.vision, task, shard, bar)
    SequenceSampler(latents, 4, 50, 1).batch(0)
    dream_starts(agent.memory, latents, (0,))
    component_space(agent.controller.numpy(), task.control_size, recorded_inputs(agent, latents), 4)
    env = environments.of(task, 2, "gymnasium", refill=True)
    rollout(task, env, agent.policy(2), [1, 2], length)
    environments.close()

torch.set_num_threads(1)
work(int(sys.argv[2]) // 4, sys.argv[1])
before = peak()
work(int(sys.argv[2]), sys.argv[1])
print(json.dumps([before, peak()]))
"""


@pytest.mark.slow
def test_memory_hardly_grows_with_the_length_of_episodes(tmp_path: Path) -> None:
    """Two episodes of 8,000 steps have 147 MB of frames more than two of 2,000, and would often be held twice."""
    length = 8000
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(length)]
    worlds = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=worlds)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert after - before < 90, (before, after)
