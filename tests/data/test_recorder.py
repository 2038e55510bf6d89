"""The recorder's memory follows the steps that are played, and its episodes are what was played."""

import tracemalloc

import numpy as np
import pytest

from worldmodels.core.chunks import FRAME_CHUNK
from worldmodels.data.collect import Recorder
from worldmodels.tasks.base import Observations
from worlds import Scripted

TASK, ROWS, LENGTHS = Scripted(), 4, np.array([1, FRAME_CHUNK - 1, FRAME_CHUNK, 3 * FRAME_CHUNK + 5])


def recorded(limit: int, lengths: np.ndarray) -> Recorder:
    """Episodes of these lengths, whose pixels are (row, step's low byte, step's high byte)."""

    def seen(rows: np.ndarray, step: int) -> Observations:
        return Observations(TASK, np.array([(row, step % 256, step // 256) for row in rows], np.uint8))

    recorder = Recorder(TASK, len(lengths), limit)
    recorder.start(seen(np.arange(len(lengths)), 0))
    for step in range(lengths.max()):
        rows = np.flatnonzero(lengths > step)
        actions = np.stack([rows, np.full(len(rows), step)], axis=1).astype(np.float32)
        recorder.step(rows, actions, rows + step / 8, lengths[rows] == step + 1, seen(rows, step + 1))
    return recorder


def test_every_step_of_every_row_is_in_its_place_whatever_the_lengths() -> None:
    recorder = recorded(1000, LENGTHS)
    for _ in range(2):
        for row, episode in enumerate(recorder.episodes(range(ROWS), "fast")):
            steps = np.arange(LENGTHS[row] + 1)
            wanted = np.stack([np.full_like(steps, row), steps % 256, steps // 256], axis=1)
            assert (episode.frames == wanted[:, None, None].astype(np.uint8)).all()
            assert (episode.actions == 2 * np.stack([np.full_like(steps, row), steps], axis=1)[:-1]).all()
            assert (episode.rewards == row + steps[:-1] / 8).all() and episode.terminated
            assert len(episode.frames) == len(episode.actions) + 1 == len(episode.rewards) + 1
    rows, steps = np.array([3, 0, 3]), np.array([0, 1, 3 * FRAME_CHUNK + 5])
    assert recorder.frames(rows, steps)[:, 0, 0].tolist() == [[3, 0, 0], [0, 1, 0], [3, 197, 0]]


@pytest.mark.parametrize("limit", [200, 27_000, 10**9])
def test_its_memory_depends_on_the_steps_that_are_played_and_not_on_the_limit(limit: int) -> None:
    played = np.full(ROWS, 130)
    tracemalloc.start()
    recorder = recorded(limit, played)
    recorder.episodes(range(ROWS), "fast")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    frame = 64 * 64 * 3
    assert peak < (played.sum() + (ROWS + 4) * FRAME_CHUNK + 131) * frame
