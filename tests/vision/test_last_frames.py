"""Worlds that show nothing after the end: V does not learn that last frame, of whatever shards and however resumed."""

from pathlib import Path

import numpy as np
import pytest

from cases import call, copy_of, refused
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.tasks.car_racing.task import CarRacing
from worldmodels.tasks.take_cover.published import PublishedTakeCover
from worldmodels.tasks.take_cover.task import TakeCover
from worldmodels.vision.train import FrameStream
from worlds import ends_by_itself, length_of, scripted_episodes

SEEDS = range(3, 250)
Moments = set[tuple[int, int]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    """Every frame shows the seed and the step of its episode."""
    store = EpisodeStore(tmp_path_factory.mktemp("episodes"))
    for index in range(3):
        store.write(index, scripted_episodes(SEEDS[index::3]))
    return store.shards()


def shown(frames: np.ndarray) -> Moments:
    return {(int(seed), int(step)) for seed, step in frames[:, 0, 0, :2]}


def last_frames() -> Moments:
    return {(seed, length_of(seed)) for seed in SEEDS if ends_by_itself(seed)}


@pytest.mark.parametrize("window", [2, 100])
def test_last_frames_of_episodes_that_the_world_ended_are_neither_drawn_nor_held_out(
    shards: list[Shard], window: int
) -> None:
    plain, without = (FrameStream(shards, 16, window, 1, shows_end) for shows_end in (True, False))
    seen: list[Moments] = []
    for stream in (plain, without):
        drawn = stream.batches(0)
        epoch = np.concatenate([next(drawn).numpy() for _ in range(stream.batches_per_epoch)])
        seen.append(shown(epoch))
        assert len(stream.held_out) > 0
    assert plain.batches_per_epoch == without.batches_per_epoch
    assert seen[0] & last_frames() and not seen[1] & last_frames()
    assert not shown(without.load(without.held_out)) & last_frames()
    cut = {(seed, length_of(seed)) for seed in SEEDS if not ends_by_itself(seed)}
    assert seen[1] & cut, "where a limit ended the episode, the last frame is a picture"


def test_all_other_frames_are_drawn_and_few_of_them_twice(shards: list[Shard]) -> None:
    stream = FrameStream(shards, 16, 100, 1, shows_end=False)
    drawn = stream.batches(0)
    epoch = np.concatenate([next(drawn).numpy() for _ in range(stream.batches_per_epoch)])
    blocks = shown(stream.load(stream._blocks)) - last_frames()
    # A batch that is not full at the end of the window is left out.
    assert shown(epoch) <= blocks and len(blocks - shown(epoch)) < 16
    _, counts = np.unique(epoch[:, 0, 0, :2], axis=0, return_counts=True)
    assert counts.max() <= 2 and counts.mean() < 1.2


def test_batches_from_the_middle_are_those_of_an_uninterrupted_run(shards: list[Shard]) -> None:
    whole, later = (FrameStream(shards, 16, 2, 1, shows_end=False).batches(step) for step in (0, 7))
    wanted = [next(whole) for _ in range(20)][7:]
    assert all((next(later) == one).all() for one in wanted)


def test_doom_shows_nothing_after_death_and_other_worlds_do() -> None:
    assert not TakeCover().shows_end and not PublishedTakeCover().shows_end and CarRacing().shows_end


@pytest.mark.usefixtures("short_world")
@pytest.mark.parametrize(("stage", "changed"), [("vision", "episodes"), ("memory", "latents")])
def test_a_network_that_learnt_last_frames_is_not_taken_for_one_that_did_not(
    stage: str,
    changed: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = copy_of(finished, tmp_path / "run")
    assert call(capsys, stage, "car-racing", "--run", run).code == 0
    monkeypatch.setattr(CarRacing, "shows_end", False)
    refused(call(capsys, stage, "car-racing", "--run", run), f"(changed: {changed})", "train --from RUN")
