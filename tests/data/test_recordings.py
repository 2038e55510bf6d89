"""Recordings of other programs: every layout is aligned rightly, and what is no episode is refused in one line."""

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import recordings
from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.data.exchange.recordings import lacking, read_recording, scan
from worldmodels.tasks import Task
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.tasks.car_racing.task import CarRacing
from worldmodels.tasks.resize import resized
from worldmodels.tasks.take_cover.task import TakeCover

AUTO = RecordingConfig()
STEPS = 5


def shown(numbers: Any, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A picture of one grey for each number."""
    return np.stack([np.full((*size, 3), number, np.uint8) for number in numbers])


def steered(numbers: Any) -> np.ndarray:
    """An action of CarRacing for each number, exact in half precision."""
    return np.array([[number / 64, 0.5, 0.25] for number in numbers])


def read(folder: Path, task: Task | None = None, settings: RecordingConfig = AUTO, **arrays: Any) -> Episode:
    """The episode of a file with these arrays."""
    np.savez(folder / "one.npz", **arrays)
    (recording,) = scan(folder, settings)
    return read_recording(recording, task or CarRacing(), settings, seed=3)


def steps_of(episode: Episode) -> list[tuple[int, int, int]]:
    """For every transition: the number of the frame before it, of its action, and of the frame after it."""
    greys, actions = episode.frames[:, 0, 0, 0].tolist(), (64 * episode.actions[:, 0]).astype(int).tolist()
    assert len(greys) == len(actions) + 1 == len(episode.rewards) + 1
    return list(zip(greys, actions, greys[1:], strict=False))


def test_with_one_observation_more_than_actions_nothing_is_lost(tmp_path: Path) -> None:
    done = np.array([0, 0, 0, 0, 1])
    rewards = np.arange(STEPS)
    episode = read(tmp_path, obs=shown(range(6)), action=steered(range(5)), reward=rewards, done=done)
    assert steps_of(episode) == [(t, t, t + 1) for t in range(5)]
    assert episode.rewards.tolist() == [0, 1, 2, 3, 4] and episode.terminated
    assert (episode.seed, episode.renderer) == (3, "imported")


def test_in_the_authors_files_an_observation_is_seen_before_its_action(tmp_path: Path) -> None:
    action = steered(range(5)).astype(np.float16)
    episode = read(tmp_path, obs=shown(range(5)), action=action)
    assert steps_of(episode) == [(t, t, t + 1) for t in range(4)]
    assert not episode.terminated and not episode.rewards.any()
    recording = scan(tmp_path, AUTO)
    assert lacking(recording, CarRacing(), AUTO) == ("rewards", "ends")


def test_a_last_observation_that_is_missing_is_repeated_where_the_world_ended(tmp_path: Path) -> None:
    done = np.array([0, 0, 0, 0, 1], bool)
    episode = read(tmp_path, obs=shown(range(5)), action=steered(range(5)), reward=np.arange(5), done=done)
    assert steps_of(episode) == [(0, 0, 1), (1, 1, 2), (2, 2, 3), (3, 3, 4), (4, 4, 4)]
    assert episode.terminated and episode.rewards.tolist() == [0, 1, 2, 3, 4]


def test_with_terminals_an_observation_is_seen_after_its_action(tmp_path: Path) -> None:
    terminals = np.array([0, 0, 0, 0, 1], bool)
    arrays = {"observations": shown(range(1, 6)), "actions": steered(range(5)), "rewards": np.arange(5)}
    episode = read(tmp_path, **arrays, terminals=terminals)
    assert steps_of(episode) == [(t, t, t + 1) for t in range(1, 5)]
    assert episode.terminated and episode.rewards.tolist() == [1, 2, 3, 4]
    other = read(tmp_path, settings=RecordingConfig(align="before"), **arrays, terminals=terminals)
    assert steps_of(other)[0] == (1, 0, 2)


def test_done_at_the_tasks_limit_is_the_limits_unless_truncations_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CarRacing, "max_steps", STEPS)
    arrays = {"obs": shown(range(6)), "action": steered(range(5)), "reward": np.zeros(5)}
    last = np.array([0, 0, 0, 0, 1], bool)
    assert not read(tmp_path, **arrays, done=last).terminated
    assert read(tmp_path, **arrays, done=last, truncated=~last & False).terminated
    assert not read(tmp_path, **arrays, done=last, truncated=last).terminated, "done says that one of both ended it"
    assert read(tmp_path, **arrays, terminations=last, truncations=~last & False).terminated
    assert not read(tmp_path, **arrays, terminations=last & False, truncations=last).terminated


def test_ends_that_files_do_not_tell_are_taken_as_one_says(tmp_path: Path) -> None:
    arrays = {"obs": shown(range(5)), "action": np.array([-1.0, 0.2, 0.5, 0.0, 1.0])}
    task = TakeCover()
    died = read(tmp_path, task, RecordingConfig(ends="world"), **arrays)
    assert died.terminated and len(died.actions) == 5
    assert died.actions[:, 0].tolist() == [-1, 0, 1, 0, 1], "controls are what M sees of them"
    assert died.rewards.tolist() == [1] * 5, "every step of the task pays this"
    assert not read(tmp_path, task, RecordingConfig(ends="limit"), **arrays).terminated
    found = scan(tmp_path, AUTO)
    assert lacking(found, task, AUTO) == ("ends",)
    assert lacking(found, task, RecordingConfig(ends="limit")) == ()


def test_actions_as_m_sees_them_must_be_numbers_that_it_can_see(tmp_path: Path) -> None:
    levels = np.eye(BinPacking().action_size)[[29, 0, 4]]
    assert read(tmp_path, BinPacking(), obs=shown(range(4)), action=levels).actions.tolist() == levels.tolist()
    with pytest.raises(UserError, match="too large"):
        read(tmp_path, BinPacking(), obs=shown(range(4)), action=1e300 * levels)


def test_numbered_actions_become_what_m_sees(tmp_path: Path) -> None:
    episode = read(tmp_path, TakeCover(), obs=shown(range(4)), action=np.array([0, 1, 2]))
    assert episode.actions[:, 0].tolist() == [0, 1, -1]
    levels = read(tmp_path, BinPacking(), obs=shown(range(4)), action=np.array([[29], [0], [4]], np.uint8))
    assert levels.actions.argmax(axis=1).tolist() == [29, 0, 4] and levels.actions.sum() == 3


def test_observations_of_the_worlds_size_become_the_tasks_frames(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6, 96, 96, 3), dtype=np.uint8)
    task, action = CarRacing(), steered(range(5))
    assert np.array_equal(read(tmp_path, obs=noise, action=action).frames, task.frames(noise))
    stretched = read(tmp_path, settings=RecordingConfig(fit="stretch"), obs=noise, action=action)
    assert np.array_equal(stretched.frames, resized(noise))


def test_other_sizes_are_stretched_or_cropped_to_their_middle(tmp_path: Path) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (6, 48, 80, 3), dtype=np.uint8)
    action = steered(range(5))
    assert np.array_equal(read(tmp_path, obs=wide, action=action).frames, resized(wide))
    cropped = read(tmp_path, settings=RecordingConfig(fit="crop"), obs=wide, action=action)
    assert np.array_equal(cropped.frames, resized(np.ascontiguousarray(wide[:, :, 16:64])))


def test_numbers_from_0_to_1_and_channels_first_are_the_same_pictures(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    variants = [
        (noise / 255).astype(np.float32),
        np.moveaxis(noise, 3, 1).copy(),
        np.moveaxis(noise / 255, 3, 1).copy(),
    ]
    for variant in variants:
        assert np.array_equal(read(tmp_path, obs=variant, action=steered(range(5))).frames, noise)


def test_long_episodes_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodels.data.exchange.pictures._MOST_TOGETHER", 4)
    episode = read(tmp_path, obs=shown(range(11), (80, 72)), action=steered(range(10)))
    assert steps_of(episode) == [(t, t, t + 1) for t in range(10)]


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self._mark,)


def archive(**changed: Any) -> bytes:
    """An episode as a file; None: without that array."""
    known: dict[str, Any] = {"obs": shown(range(6)), "action": steered(range(5)), "reward": np.zeros(5)}
    file = io.BytesIO()
    np.savez_compressed(file, **{name: value for name, value in (known | changed).items() if value is not None})
    return file.getvalue()


def claiming(shape: str, size: int | None = None, name: str = "obs") -> bytes:
    """An archive whose header claims a shape; with ``size``, its directory claims so many bytes, too."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        for key, value in {"obs": shown(range(6)), "action": steered(range(5))}.items():
            data = io.BytesIO()
            np.save(data, value)
            content = data.getvalue()
            if key == name:
                start = content.index(b"'shape': ") + 9
                end = content.index(b"), }", start) + 1
                content = content[:start] + shape.encode().ljust(end - start) + content[end:]
            written.writestr(f"{key}.npy", content)
            if key == name and size is not None:
                written.filelist[-1].file_size = size
    return file.getvalue()


def compressed(kind: int) -> bytes:
    """An archive in a compression of which a few kilobytes, to see a header, can unpack to gigabytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive())) as good, zipfile.ZipFile(file, "w", kind) as written:
        for name in good.namelist():
            written.writestr(name, good.read(name))
    return file.getvalue()


def leading_elsewhere() -> bytes:
    """An archive whose names are paths out of any folder."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive())) as good, zipfile.ZipFile(file, "w") as written:
        for name in good.namelist():
            written.writestr(f"../../{name}", good.read(name))
    return file.getvalue()


BAD: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda mark: b"",
    "cut in half": lambda mark: archive()[: len(archive()) // 2],
    "its last byte is missing": lambda mark: archive()[:-1],
    "a damaged directory": lambda mark: archive()[:-30] + bytes(30),
    "a pickle": lambda mark: pickle.dumps(Trap(mark)),
    "observations of objects": lambda mark: archive(obs=np.array([Trap(mark)] * 6, object)),
    "actions of objects": lambda mark: archive(action=np.array([Trap(mark)] * 5, object)),
    "rewards of objects": lambda mark: archive(reward=np.array([Trap(mark)] * 5, object)),
    "a header of 10^12": lambda mark: claiming("(1000000000000,)"),
    "a header and a directory of 10^12": lambda mark: claiming(
        "(10**6, 999, 999, 3)".replace("10**6", "1000000"), 10**12
    ),
    "negative sizes": lambda mark: claiming("(-6, -64, 64, 3)"),
    "endless actions": lambda mark: claiming("(999999999, 3)", 8 * 3 * 999999999, "action"),
    "names that lead elsewhere": lambda mark: leading_elsewhere(),
    "bzip2": lambda mark: compressed(zipfile.ZIP_BZIP2),
    "LZMA": lambda mark: compressed(zipfile.ZIP_LZMA),
    "no observations": lambda mark: archive(obs=None),
    "no actions": lambda mark: archive(action=None),
    "two kinds of actions": lambda mark: archive(actions=steered(range(5))),
    "too few observations": lambda mark: archive(obs=shown(range(4))),
    "too many observations": lambda mark: archive(obs=shown(range(7))),
    "no steps": lambda mark: archive(obs=shown([1]), action=steered([]).reshape(0, 3), reward=np.zeros(0)),
    "grey pictures": lambda mark: archive(obs=np.zeros((6, 64, 64), np.uint8)),
    "four channels": lambda mark: archive(obs=np.zeros((6, 64, 64, 4), np.uint8)),
    "channels at both ends": lambda mark: archive(obs=np.zeros((6, 3, 64, 3), np.uint8)),
    "observations of signed numbers": lambda mark: archive(obs=shown(range(6)).astype(np.int32)),
    "observations above 1": lambda mark: archive(obs=shown(range(6)).astype(np.float32)),
    "observations that are NaN": lambda mark: archive(obs=np.full((6, 64, 64, 3), np.nan, np.float32)),
    "actions that are NaN": lambda mark: archive(action=np.full((5, 3), np.nan)),
    "actions out of bounds": lambda mark: archive(action=np.full((5, 3), 2.0)),
    "actions of another size": lambda mark: archive(action=np.zeros((5, 2))),
    "actions that are words": lambda mark: archive(action=np.array([["left"]] * 5)),
    "rewards that are infinite": lambda mark: archive(reward=np.full(5, np.inf)),
    "rewards of another length": lambda mark: archive(reward=np.zeros(4)),
    "an end in the middle": lambda mark: archive(done=np.array([0, 1, 0, 0, 1])),
    "ends that are numbers": lambda mark: archive(done=np.array([0, 0, 0, 0, 7])),
    "Fortran's order": lambda mark: archive(obs=np.asfortranarray(shown(range(6)))),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_episode_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    (tmp_path / "bad.npz").write_bytes(BAD[name](mark))
    with pytest.raises(UserError, match=r"bad\.npz is not an episode: .*nothing of it was imported") as refused:
        for recording in scan(tmp_path, AUTO):
            read_recording(recording, CarRacing(), AUTO, 0)
    assert "\n" not in str(refused.value) and not mark.exists()


def test_a_header_that_claims_to_be_huge_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.npz", "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("obs.npy", b"\x93NUMPY\x02\x00" + (30 << 20).to_bytes(4, "little") + bytes(30 << 20))
        written.writestr("action.npy", b"")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="is not an episode"):
            scan(tmp_path, AUTO)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_a_flipped_bit_anywhere_in_the_numbers_is_noticed(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, obs=shown(range(6)), action=steered(range(5)))
    data = file.getvalue()
    for place in range(400, len(data) - 400, len(data) // 9):
        (tmp_path / "one.npz").write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(UserError, match="is not an episode"):
            for recording in scan(tmp_path, AUTO):
                read_recording(recording, CarRacing(), AUTO, 0)


def test_folders_without_recordings_and_mixed_ones_say_what_was_expected(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no \.npz files in .*one per episode"):
            scan(folder, AUTO)
    (tmp_path / "a.npz").write_bytes(archive())
    (tmp_path / "b.npz").write_bytes(archive(reward=None))
    with pytest.raises(UserError, match=r"b\.npz has no reward, which others in .* have; import them separately"):
        scan(tmp_path, AUTO)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="not a regular file"):
        scan(tmp_path, AUTO)


def test_too_many_steps_are_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_STEPS", 4)
    (tmp_path / "long.npz").write_bytes(archive())
    with pytest.raises(UserError, match="expected 1 to 4 actions"):
        scan(tmp_path, AUTO)
