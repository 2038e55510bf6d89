"""A run is exported in the formats of other programs, and a folder appears only when all of it is there."""

import errno
from pathlib import Path

import numpy as np
import pytest

import cases
from worldmodels.core.errors import UserError
from worldmodels.data.exchange import episode_format, npz
from worldmodels.run.exporting import export_episodes
from worldmodels.run.reader import RunReader


@pytest.mark.parametrize("name", ["npz", "minari", "hf-dataset"])
def test_the_episodes_of_a_run_are_exported(
    name: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    outcome = cases.call(capsys, "export", "episodes", finished, "--format", name, "--out", out)
    assert outcome.code == 0, outcome.err
    reader = RunReader(finished)
    found = list(episode_format(name).read(out))
    assert len(found) == reader.episode_count
    for mine, theirs in zip(found, reader.episodes(), strict=True):
        assert np.array_equal(mine.frames, theirs.frames) and np.array_equal(mine.actions, theirs.actions)
        assert np.array_equal(mine.rewards, theirs.rewards) and mine.terminated == theirs.terminated


def test_the_latents_of_a_run_are_exported(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = cases.call(capsys, "export", "latents", finished, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    latents, reader = RunReader(finished).latents(), RunReader(finished)
    mu = []
    for index, episode in enumerate(reader.episodes()):
        with np.load(npz.npz_path(tmp_path / "out", index), allow_pickle=False) as archive:
            assert np.array_equal(archive["action"], episode.actions) and np.array_equal(
                archive["reward"], episode.rewards
            )
            assert archive["mu"].shape == archive["logvar"].shape == (len(episode.frames), 8)
            assert bool(archive["done"][-1]) == episode.terminated
            mu.append(archive["mu"])
    assert np.array_equal(np.concatenate(mu), latents.mu.numpy())


def test_a_full_disk_leaves_nothing_behind(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(npz, "write_bytes", full)
    with pytest.raises(UserError, match=r"could not write .*No space left on device"):
        export_episodes(finished, "npz", tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_exported_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases.begin(tmp_path / "run")
    nothing = cases.call(capsys, "export", "episodes", tmp_path / "run", "--out", tmp_path / "out")
    cases.refused(nothing, "has no episodes yet")
    cases.refused(cases.call(capsys, "export", "episodes", tmp_path, "--out", tmp_path / "out"), "is not a run")
    wrong = cases.call(capsys, "export", "episodes", tmp_path / "run", "--format", "xls", "--out", tmp_path / "out")
    cases.refused(wrong, "unknown episode format 'xls'")
    cases.refused(cases.call(capsys, "export", "episodes", tmp_path / "run"), "expected --out DIR")
    cases.refused(cases.call(capsys, "export", "agents"), "expected episodes or latents or onnx after export")
    assert not (tmp_path / "out").exists()
