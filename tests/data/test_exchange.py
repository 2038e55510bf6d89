"""Episodes in the formats of others: what is written comes back, and what is no episode is refused in one line."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange import episode_format
from worlds import ends_by_itself, scripted_episodes


def assert_same(found: Episode, wanted: Episode) -> None:
    for name in ("frames", "actions", "rewards"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
    assert (found.terminated, found.seed, found.renderer) == (wanted.terminated, wanted.seed, wanted.renderer)


def test_episodes_that_are_written_as_npz_come_back_as_they_were(tmp_path: Path) -> None:
    episodes, target = scripted_episodes(range(30, 43)), tmp_path / "new" / "folder"
    assert episode_format("npz").write(iter(episodes), target) == 13
    found = list(episode_format("npz").read(target))
    assert len(found) == 13
    for mine, theirs in zip(found, episodes, strict=True):
        assert_same(mine, theirs)


def test_an_archive_is_what_scripts_of_the_field_expect(tmp_path: Path) -> None:
    episodes = scripted_episodes([30, 31])
    episode_format("npz").write(episodes, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode-000000.npz", "episode-000001.npz"]
    for path, episode in zip(sorted(tmp_path.iterdir()), episodes, strict=True):
        with np.load(path, allow_pickle=False) as archive:
            steps = len(episode.actions)
            assert archive["obs"].shape == (steps + 1, 64, 64, 3) and archive["obs"].dtype == np.uint8
            assert archive["action"].shape == (steps, 2) and archive["reward"].shape == (steps,)
            assert archive["done"].tolist() == [False] * (steps - 1) + [ends_by_itself(episode.seed)]


def test_archives_of_others_need_neither_seed_nor_renderer(tmp_path: Path) -> None:
    arrays = {"obs": np.zeros((4, 64, 64, 3), np.uint8), "action": np.ones((3, 1)), "reward": np.arange(3)}
    np.savez(tmp_path / "theirs.npz", **arrays, done=np.array([0, 0, 1]))
    (episode,) = episode_format("npz").read(tmp_path)
    assert episode.terminated and episode.seed == 0 and episode.renderer == "unknown"
    assert episode.actions.dtype == episode.rewards.dtype == np.float32 and episode.rewards.tolist() == [0, 1, 2]


def test_episodes_are_read_one_at_a_time_and_the_good_ones_before_a_bad_one_are_there(tmp_path: Path) -> None:
    episode_format("npz").write(scripted_episodes([30, 31]), tmp_path)
    (tmp_path / "episode-000001.npz").write_bytes(b"")
    episodes = episode_format("npz").read(tmp_path)
    assert next(episodes).seed == 30
    with pytest.raises(UserError, match=r"episode-000001\.npz is not an episode"):
        next(episodes)


def test_only_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    for target in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(UserError, match="is not an empty folder; choose another one"):
            episode_format("npz").write(scripted_episodes([30]), target)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_without_episodes_says_what_was_expected(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no \.npz episodes in .*obs, action, reward and done"):
            next(episode_format("npz").read(folder))


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown episode format 'hdf5'; known: hf-dataset, minari, npz"):
        episode_format("hdf5")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self._mark,)


def arrays(**changed: Any) -> dict[str, Any]:
    """An episode of three actions as an archive holds it; None: it does not."""
    known: dict[str, Any] = {
        "obs": np.zeros((4, 64, 64, 3), np.uint8),
        "action": np.zeros((3, 2), np.float32),
        "reward": np.zeros(3, np.float32),
        "done": np.zeros(3, bool),
    }
    return {name: value for name, value in (known | changed).items() if value is not None}


def archive(**changed: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays(**changed))  # type: ignore[arg-type]
    return file.getvalue()


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def flipped(data: bytes) -> bytes:
    """Every byte of what is compressed is another one."""
    start = zipfile.ZipFile(io.BytesIO(data)).infolist()[1].header_offset
    return bytes(byte ^ 255 if 60 < place < start else byte for place, byte in enumerate(data))


def endless() -> bytes:
    """An archive whose header promises more than any memory holds."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, value in arrays().items():
            written.writestr(f"{name}.npy", array(value).replace(b"(4, 64, 64, 3), }", b"(4000000000000,)}"))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        lambda mark: b"",
        lambda mark: b"PK\x03\x04 and no more",
        lambda mark: bytes(range(256)) * 10,
        lambda mark: archive()[:-100],
        lambda mark: flipped(archive()),
        lambda mark: endless(),
        lambda mark: array(np.zeros(3)),
        lambda mark: pickle.dumps(Trap(mark)),
        lambda mark: archive(obs=np.array([Trap(mark)], dtype=object)),
        lambda mark: archive(renderer=np.array([Trap(mark)], dtype=object)),
        lambda mark: archive(obs=None),
        lambda mark: archive(done=None),
        lambda mark: archive(obs=np.zeros((3, 64, 64, 3), np.uint8)),
        lambda mark: archive(obs=np.zeros((4, 64, 64, 3), np.float32)),
        lambda mark: archive(obs=np.zeros((4, 96, 96, 3), np.uint8)),
        lambda mark: archive(action=np.zeros(3)),
        lambda mark: archive(action=np.float32(0)),
        lambda mark: archive(action=np.array([["left"]] * 3)),
        lambda mark: archive(reward=np.zeros((3, 1))),
        lambda mark: archive(done=np.zeros(2, bool)),
        lambda mark: archive(seed=np.zeros(2)),
        lambda mark: archive(obs=np.zeros((1, 64, 64, 3), np.uint8), action=np.zeros((0, 2)), reward=[], done=[]),
    ],
)
def test_damaged_pickled_and_foreign_archives_are_refused_in_one_line(
    content: Callable[[Path], bytes], tmp_path: Path
) -> None:
    mark = tmp_path / "unpickled"
    (tmp_path / "episode-000000.npz").write_bytes(content(mark))
    with pytest.raises(UserError, match=r"episode-000000\.npz is not an episode: .") as refused:
        list(episode_format("npz").read(tmp_path))
    assert "\n" not in str(refused.value) and not mark.exists()
