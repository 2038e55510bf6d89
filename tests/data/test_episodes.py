"""The data: what is recorded, what is stored, and which frames V is trained on."""

import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldmodels.core.chunks import FRAME_CHUNK as BLOCK
from worldmodels.core.errors import UserError
from worldmodels.data.collect import record_episodes
from worldmodels.data.episodes import Episode, EpisodeStore
from worldmodels.execution.executor import LocalExecutor
from worldmodels.vision.train import FrameStream
from worlds import (
    MAX_STEPS,
    Diarist,
    Scripted,
    action_at,
    ends_by_itself,
    length_of,
    reward_at,
    scripted_episodes,
)

# --- recording -----------------------------------------------------------------------------------------------


def assert_scripted(episode: Episode, seed: int, length: int) -> None:
    """Every number of the episode says that it is in its place."""
    assert episode.seed == seed and episode.frames.shape == (length + 1, 64, 64, 3)
    assert (episode.frames == episode.frames[:, :1, :1]).all() and (episode.frames[..., 0] == seed).all()
    # Frame 0 is the reset frame, frame t+1 the one after action t; the final one is there.
    assert episode.frames[:, 0, 0, 1].tolist() == list(range(length + 1))
    assert episode.frames[1:, 0, 0, 2].tolist() == list(range(length)), "a frame does not follow its action"
    actions = [2 * action_at(seed, step) for step in range(length)]
    assert np.array_equal(episode.actions, actions) and episode.actions.dtype == np.float32
    assert episode.rewards.tolist() == [reward_at(seed, step) for step in range(length)]


def test_frames_actions_and_rewards_are_aligned_and_the_final_ones_are_kept() -> None:
    seeds = list(range(30, 45))
    episodes = scripted_episodes(seeds)
    assert len(episodes) == len(seeds)
    for episode, seed in zip(episodes, seeds, strict=True):
        assert_scripted(episode, seed, length_of(seed))
        assert episode.terminated == ends_by_itself(seed), "a time limit is not an end of the world"
        assert episode.renderer == "fast"


def test_a_limit_of_steps_cuts_an_episode_without_ending_its_world() -> None:
    (episode,) = record_episodes(LocalExecutor(), Scripted(), "slow", lambda _: Diarist(), [12], 3)
    assert_scripted(episode, 12, 3)
    assert not episode.terminated and episode.renderer == "slow"


def test_every_attempt_gets_a_fresh_policy_and_a_fresh_recorder() -> None:
    asked: list[list[int]] = []

    def policy(seeds: Sequence[int]) -> Diarist:
        asked.append(list(seeds))
        return Diarist()

    task = Scripted(deaths=2)
    episodes = record_episodes(LocalExecutor(), task, "fast", policy, [40, 41], MAX_STEPS)
    for episode, seed in zip(episodes, [40, 41], strict=True):
        assert_scripted(episode, seed, length_of(seed))
    assert asked == [[40, 41]] * 3 and len(task.made) == 3


# --- the store -----------------------------------------------------------------------------------------------


def assert_same(found: Episode, wanted: Episode) -> None:
    for name in ("frames", "actions", "rewards"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
    assert (found.terminated, found.seed, found.renderer) == (wanted.terminated, wanted.seed, wanted.renderer)


def test_recorded_episodes_come_back_from_the_store_as_they_were(tmp_path: Path) -> None:
    store, parts = EpisodeStore(tmp_path), [range(30, 36), range(50, 53)]
    for index, seeds in enumerate(parts):
        store.write(index, scripted_episodes(seeds))
    shards = EpisodeStore(tmp_path).shards()
    assert [shard.seeds.tolist() for shard in shards] == [list(seeds) for seeds in parts]
    for shard, seeds in zip(shards, parts, strict=True):
        for episode, seed in zip(shard.episodes(), seeds, strict=True):
            assert_scripted(episode, seed, length_of(seed))
            assert episode.terminated == ends_by_itself(seed)
        sums = [sum(reward_at(seed, step) for step in range(length_of(seed))) for seed in seeds]
        assert shard.returns().tolist() == sums
        assert shard.num_frames == sum(length_of(seed) + 1 for seed in seeds)


@st.composite
def episodes(draw: st.DrawFn) -> list[Episode]:
    """One to five episodes of tiny frames, some longer than one file of the store."""
    size, actions = draw(st.sampled_from([(1, 1), (2, 3)])), draw(st.integers(1, 4))
    stream = np.random.default_rng(draw(st.integers(0, 2**32)))
    result = []
    for length in draw(st.lists(st.sampled_from([1, 2, 62, 63, 64, 65, 2047, 2048, 5000]), min_size=1, max_size=5)):
        frames = stream.integers(0, 256, (length + 1, *size, 3), dtype=np.uint8)
        motion = stream.standard_normal((length, actions)).astype(np.float32)
        rewards = draw(st.sampled_from([0.0, -0.1, 3e38, 1e-45])) * np.ones(length, np.float32)
        seed, terminated = draw(st.integers(0, 2**31 - 1)), draw(st.booleans())
        result.append(Episode(frames, motion, rewards.astype(np.float32), terminated, seed, "envpool"))
    return result


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(episodes())
def test_any_episodes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, wanted: list[Episode]) -> None:
    store = EpisodeStore(tmp_path_factory.mktemp("store"))
    store.write(0, wanted)
    for mine, theirs in zip(store.shards()[0].episodes(), wanted, strict=True):
        assert_same(mine, theirs)


def test_a_shard_that_was_cut_short_is_invisible_and_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EpisodeStore(tmp_path)
    store.write(0, scripted_episodes([30]))

    replace = os.replace

    def cut(source: Path, target: Path) -> None:
        if target == store.shard_path(1):
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            store.write(1, scripted_episodes([31]))
    # What kill -9 leaves behind, which cleans up nothing: a hidden half of a shard.
    half = tmp_path / ".shard-00001.zarr.tmp"
    (half / "frames").mkdir(parents=True)
    (half / "zarr.json").write_text("{")
    assert not store.has(1) and [shard.seeds.tolist() for shard in store.shards()] == [[30]]
    store.write(1, scripted_episodes([31]))
    assert store.has(1) and [shard.seeds.tolist() for shard in store.shards()] == [[30], [31]]
    assert not half.exists()


def test_a_store_without_episodes_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the collect stage first"):
        EpisodeStore(tmp_path).shards()


# --- the frames that V is trained on -------------------------------------------------------------------------


def numbered_store(folder: Path, frames_per_shard: Sequence[int]) -> EpisodeStore:
    """Shards whose frames carry their own number over the whole store, in two pixels."""
    store, number = EpisodeStore(folder), 0
    for index, count in enumerate(frames_per_shard):
        frames = np.zeros((count, 64, 64, 3), np.uint8)
        numbers = np.arange(number, number + count)
        frames[:, 0, 0, 0], frames[:, 0, 0, 1] = numbers >> 8, numbers & 255
        number += count
        empty = np.zeros((count - 1, 1), np.float32)
        store.write(index, [Episode(frames, empty, empty[:, 0], False, index, "envpool")])
    return store


def numbers_of(frames: torch.Tensor) -> list[int]:
    first = frames[:, 0, 0].int()
    return (256 * first[:, 0] + first[:, 1]).tolist()


SIZES = [1000, 70, 63, 640]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    return numbered_store(tmp_path_factory.mktemp("numbered"), SIZES)


def whole_blocks() -> list[list[int]]:
    """Numbers of the frames of every block that fits into a shard."""
    starts = np.cumsum([0, *SIZES])
    return [
        list(range(start + at, start + at + BLOCK))
        for start, size in zip(starts, SIZES, strict=False)
        for at in range(0, size - BLOCK + 1, BLOCK)
    ]


@pytest.mark.parametrize(("batch", "window"), [(16, 100), (50, 4), (64, 1), (200, 7)])
def test_every_epoch_shows_a_frame_at_most_once_and_nearly_all(numbered: EpisodeStore, batch: int, window: int) -> None:
    stream = FrameStream(numbered.shards(), batch, window, seed=1)
    source = stream.batches(0)
    blocks = whole_blocks()
    assert len(blocks) == 15 + 1 + 0 + 10
    held = {number for block in stream.held_out for number in numbers_of(torch.from_numpy(stream.load([block])))}
    assert held == set(range(1000, 1070)), "one episode, whose share is the closest to a twentieth"
    everything = {number for block in blocks for number in block}
    orders = []
    for _ in range(2):
        shown = [numbers_of(next(source)) for _ in range(stream.batches_per_epoch)]
        assert all(len(one) == batch for one in shown)
        flat = [number for one in shown for number in one]
        assert len(set(flat)) == len(flat), "a frame was shown twice in an epoch"
        assert set(flat) <= everything - held, "V was trained on a frame that measures it"
        windows = -(-25 // min(window, 25))
        lost_to_the_last_window = (25 % min(window, 25)) * BLOCK
        assert len(flat) >= 25 * BLOCK - windows * (batch - 1) - lost_to_the_last_window
        orders.append(flat)
    assert orders[0] != orders[1]


def several_episodes(folder: Path, lengths: Sequence[Sequence[int]]) -> EpisodeStore:
    """Shards of episodes with these numbers of frames, which carry their episode's number in a pixel."""
    store, number = EpisodeStore(folder), 0
    for index, counts in enumerate(lengths):
        episodes = []
        for count in counts:
            motion = np.zeros((count - 1, 1), np.float32)
            frames = np.full((count, 64, 64, 3), number, np.uint8)
            episodes.append(Episode(frames, motion, motion[:, 0], False, number, "envpool"))
            number += 1
        store.write(index, episodes)
    return store


def test_v_is_measured_on_whole_episodes_of_which_it_sees_no_frame(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(30, 200, (4, 15)).tolist()
    stream = FrameStream(several_episodes(tmp_path, drawn).shards(), 16, 8, seed=1)
    numbers, counts = np.unique(stream.load(stream.held_out)[:, 0, 0, 0], return_counts=True)
    lengths = np.concatenate(drawn)
    assert counts.tolist() == lengths[numbers].tolist() and len(numbers) == 3
    assert abs(counts.sum() / lengths.sum() - 1 / 20) < 0.005
    source = stream.batches(0)
    shown = {int(number) for _ in range(stream.batches_per_epoch) for number in next(source)[:, 0, 0, 0]}
    assert shown.isdisjoint(numbers.tolist()) and len(shown) > 50


def test_of_a_single_episode_the_last_blocks_are_held_out_and_of_too_few_frames_none(tmp_path: Path) -> None:
    shards = numbered_store(tmp_path / "long", [40 * BLOCK + 10]).shards()
    stream = FrameStream(shards, 64, 10, seed=1)
    held = numbers_of(torch.from_numpy(stream.load(stream.held_out)))
    assert held == list(range(38 * BLOCK, 40 * BLOCK)) and stream.batches_per_epoch == 38
    few = FrameStream(several_episodes(tmp_path / "few", [[40, 40]]).shards(), 64, 4, seed=1)
    assert few.held_out == [] and few.batches_per_epoch == 1


def test_batches_are_shuffled_across_the_blocks_of_a_window(numbered: EpisodeStore) -> None:
    batch = numbers_of(next(FrameStream(numbered.shards(), 64, 25, seed=1).batches(0)))
    assert len({number // BLOCK for number in batch}) > 10


@pytest.mark.parametrize("window", [4, 100])
def test_the_stream_can_begin_at_any_step(numbered: EpisodeStore, window: int) -> None:
    def stream() -> FrameStream:
        return FrameStream(numbered.shards(), 50, window, seed=3)

    total = 2 * stream().batches_per_epoch + 3
    source = stream().batches(0)
    whole = [numbers_of(next(source)) for _ in range(total)]
    for step in (1, 5, stream().batches_per_epoch - 1, stream().batches_per_epoch, total - 1):
        assert numbers_of(next(stream().batches(step))) == whole[step], step
    after = stream().batches(7)
    assert [numbers_of(next(after)) for _ in range(total - 7)] == whole[7:]
    other = FrameStream(numbered.shards(), 50, window, seed=4)
    assert numbers_of(next(other.batches(0))) != whole[0]


def test_frames_keep_their_pixels_on_their_way_through_store_and_stream(tmp_path: Path) -> None:
    stream = np.random.default_rng(1)
    frames = stream.integers(0, 256, (2 * BLOCK, 64, 64, 3), dtype=np.uint8)
    motion = np.zeros((2 * BLOCK - 1, 1), np.float32)
    store = EpisodeStore(tmp_path)
    store.write(0, [Episode(frames, motion, motion[:, 0], False, 1, "envpool")])
    batch = next(FrameStream(store.shards(), 2 * BLOCK, 9, seed=1).batches(0)).numpy()
    assert sorted(frame.tobytes() for frame in batch) == sorted(frame.tobytes() for frame in frames)


def test_too_few_frames_for_a_batch_are_refused(tmp_path: Path) -> None:
    store = numbered_store(tmp_path, [70])
    with pytest.raises(UserError, match="64 frames are too few for batches of 65; collect more"):
        FrameStream(store.shards(), 65, 4, seed=1)


def peak_of_an_epoch(store: EpisodeStore) -> int:
    """Bytes allocated at most while all frames pass by, three windows of two blocks after the other and more."""
    stream = FrameStream(store.shards(), 64, 2, seed=1)
    source = stream.batches(0)
    tracemalloc.start()
    try:
        for _ in range(stream.batches_per_epoch):
            next(source)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_stays_flat_however_large_the_store_is(tmp_path: Path) -> None:
    small = numbered_store(tmp_path / "small", [6 * BLOCK])
    large = numbered_store(tmp_path / "large", [6 * BLOCK] * 6)
    frames = 36 * BLOCK * 64 * 64 * 3
    peak_of_an_epoch(small)  # modules that are imported on the way
    peaks = peak_of_an_epoch(small), peak_of_an_epoch(large)
    assert peaks[1] < 1.3 * peaks[0], peaks
    assert peaks[1] < frames / 2, (peaks, frames)


def test_writing_copies_no_more_than_a_file_at_a_time(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        frames = np.zeros((2 * 2048, 64, 64, 3), np.uint8)
        motion = np.zeros((4095, 1), np.float32)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        EpisodeStore(tmp_path).write(0, [Episode(frames, motion, motion[:, 0], False, 1, "envpool")])
        used = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert used < 4 * frames.nbytes / 2, f"{used / 1e6:.0f} MB for files of {frames.nbytes / 2e6:.0f} MB"
