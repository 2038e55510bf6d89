"""Imported episodes are the finished collect stage of a run, from which all other stages go on."""

import json
from pathlib import Path

import numpy as np
import pytest

import cases
import published
from worldmodels.core.errors import UserError
from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.run import importing
from worldmodels.run.config import Config
from worldmodels.run.importing import import_episodes
from worldmodels.run.presets import preset
from worldmodels.run.reader import RunReader

AUTO = RecordingConfig()


def record(folder: Path, count: int = 5, size: int = 64, **more: object) -> Path:
    """Recordings of CarRacing in the layout of 2018."""
    folder.mkdir()
    for index in range(count):
        random, steps = np.random.default_rng(index), 90 + 10 * index
        obs = random.integers(0, 256, (steps, size, size, 3), dtype=np.uint8)
        arrays = {"obs": obs, "action": random.random((steps, 3)).astype(np.float16)}
        np.savez(folder / f"{index}.npz", **arrays, **{name: np.zeros(steps) for name in more})  # type: ignore[arg-type]
    return folder


def settings(**changed: object) -> Config:
    small = {"vision.latent-size": 8, "vision.epochs": 0.5, "vision.batch": 16, "vision.window": 2}
    small |= {"memory.hidden-size": 16, "memory.mixtures": 2, "memory.steps": 5, "memory.batch": 4, "memory.length": 20}
    return preset("quick", "car-racing").with_settings(**{**small, **changed})


def test_an_imported_run_goes_on_with_its_other_stages(tmp_path: Path) -> None:
    folder, run = record(tmp_path / "files"), tmp_path / "run"
    import_episodes(settings(), run, folder, AUTO, "local")
    reader = RunReader(run)
    assert reader.episode_count == 5 and [len(one.actions) for one in reader.episodes()] == [89, 99, 109, 119, 129]
    with np.load(folder / "2.npz") as wanted:
        assert np.array_equal(reader.episode(2).frames, wanted["obs"])
        assert np.array_equal(reader.episode(2).actions, wanted["action"][:-1].astype(np.float32))
    for stage in ("collect", "vision", "encode", "memory"):
        outcome = cases.command(stage, "--run", run)
        assert outcome.code == 0, outcome.err
    memory = reader.memory()
    assert memory.reward_head is None and memory.end_head is None, "nothing says how they would have to be trained"
    assert reader.latents().lengths.tolist() == [89, 99, 109, 119, 129]


def test_an_import_that_was_stopped_continues_and_a_damaged_shard_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole, run = record(tmp_path / "files"), tmp_path / "whole", tmp_path / "run"
    monkeypatch.setattr(importing, "_SHARD_EPISODES", 2)
    import_episodes(settings(), whole, folder, AUTO, "local")

    read, calls = importing.read_recording, list[str]()

    def dies(recording: importing.Recording, *rest: object) -> object:
        calls.append(recording.path.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(recording, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "read_recording", dies)
    with pytest.raises(KeyboardInterrupt):
        import_episodes(settings(), run, folder, AUTO, "local")
    with pytest.raises(UserError, match="not finished"):
        RunReader(run).vision()
    frames = run / "round-1" / "episodes" / "shard-00000.zarr" / "frames"
    cases.flip(next(path for path in sorted((frames / "c").rglob("*")) if path.is_file()))
    calls.clear()
    monkeypatch.setattr(
        importing, "read_recording", lambda one, *rest: (calls.append(one.path.name), read(one, *rest))[1]
    )
    import_episodes(settings(), run, folder, AUTO, "local")
    assert calls == ["0.npz", "1.npz", "2.npz", "3.npz", "4.npz"]
    assert cases.digests(run, ["collect"]) == cases.digests(whole, ["collect"])
    calls.clear()
    import_episodes(settings(), run, folder, AUTO, "local")
    assert not calls, "a finished import is not repeated"


def test_other_recordings_do_not_mix_with_those_of_a_run(tmp_path: Path) -> None:
    run, folder = tmp_path / "run", record(tmp_path / "some", 2)
    import_episodes(settings(), run, folder, AUTO, "local")
    with pytest.raises(UserError, match=r"was made with .*imported-"):
        import_episodes(settings(), run, record(tmp_path / "others", 3), AUTO, "local")
    with np.load(folder / "1.npz") as before:
        arrays = {"obs": before["obs"], "action": before["action"][::-1]}
    size = (folder / "1.npz").stat().st_size
    np.savez(folder / "1.npz", **arrays)  # recorded again, with the same name and size
    assert (folder / "1.npz").stat().st_size == size
    with pytest.raises(UserError, match=r"was made with .*imported-"):
        import_episodes(settings(), run, folder, AUTO, "local")


def test_a_bad_file_is_found_before_anything_is_written(tmp_path: Path) -> None:
    folder = record(tmp_path / "files", 3)
    cases.truncate(folder / "2.npz")
    with pytest.raises(UserError, match=r"2\.npz is not an episode"):
        import_episodes(settings(), tmp_path / "run", folder, AUTO, "local")
    assert not (tmp_path / "run").exists()


def test_recordings_without_what_dreams_need_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = record(tmp_path / "files", 2)
    dream = preset("dream", "car-racing")
    with pytest.raises(UserError, match=r"do not hold rewards and ends, without which M's dreams.*--phases"):
        import_episodes(dream, tmp_path / "run", folder, AUTO, "local")
    doom = tmp_path / "doom"
    doom.mkdir()
    np.savez(doom / "0.npz", obs=np.zeros((4, 64, 64, 3), np.uint8), action=np.zeros(4, np.float16))
    with pytest.raises(UserError, match=r"do not hold ends.*--ends world or --ends limit"):
        import_episodes(preset("quick", "take-cover"), tmp_path / "run", doom, AUTO, "local")
    assert not (tmp_path / "run").exists()
    import_episodes(preset("quick", "take-cover"), tmp_path / "run", doom, RecordingConfig(ends="world"), "local")
    (episode,) = RunReader(tmp_path / "run").episodes()
    assert episode.terminated and episode.rewards.tolist() == [1.0] * 4


def test_episodes_that_were_imported_are_never_recorded_in_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    import_episodes(settings(), run, record(tmp_path / "files", 2), AUTO, "local")
    stage = run / "round-1" / "episodes"
    content = sorted(path.name for path in stage.glob("shard-*"))
    (stage / "done.json").unlink()
    cases.refused(cases.call(capsys, "collect", "--run", run), "cannot be recorded again", "import them again")
    assert sorted(path.name for path in stage.glob("shard-*")) == content


def test_a_published_v_becomes_the_vision_stage_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    weights = published.random_files(tmp_path / "weights")
    config = preset("quick", "car-racing-published").with_settings(**{"vision.latent-size": 32})
    import_episodes(config, run, record(tmp_path / "files", 2), AUTO, "local")
    outcome = cases.call(capsys, "import", "weights", tmp_path / "weights", "--run", run)
    assert outcome.code == 0, outcome.err
    assert cases.call(capsys, "import", "weights", tmp_path / "weights", "--run", run).code == 0, "the same once more"
    published.random_files(tmp_path / "newer", seed=1)
    cases.refused(cases.call(capsys, "import", "weights", tmp_path / "newer", "--run", run), "has another V already")
    assert cases.command("encode", "--run", run).code == 0
    mu, _ = published.encode(weights["vae"], RunReader(run).episode(0).frames[0] / 255)
    np.testing.assert_allclose(RunReader(run).latents().mu[0].float().numpy(), mu, atol=0.05)
    other = tmp_path / "other"
    import_episodes(settings(), other, tmp_path / "files", AUTO, "local")
    cases.refused(
        cases.call(capsys, "import", "weights", tmp_path / "weights", "--run", other),
        "expected a run with task car-racing-published",
    )


def test_recordings_of_a_gymnasium_environment_are_imported_and_the_run_alone_continues_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = tmp_path / "files", tmp_path / "run"
    folder.mkdir()
    np.savez(folder / "0.npz", obs=np.zeros((5, 20, 20, 3), np.uint8), action=np.array([0, 1, 1, 0]))
    words = ["import", "episodes", folder, "--preset", "quick", "--run", run, "--executor", "local"]
    outcome = cases.call(capsys, *words, "--task", "gym:gym_worlds:toy/Diary-v0", "--env.space", "two")
    assert outcome.code == 0, outcome.err
    config = RunReader(run).config
    assert (config.task, config.env) == ("gym:gym_worlds:toy/Diary-v0", {"space": "two"})
    assert config.world["options"] == config.env and RunReader(run).episode(0).actions[:, 0].tolist() == [-1, 1, 1, -1]
    again = cases.call(capsys, "import", "episodes", folder, "--run", run, "--executor", "local")
    assert again.code == 0 and "collect: already done" in again.err, again.err


def test_the_command_imports_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = record(tmp_path / "files", 2), tmp_path / "run"
    words = ["import", "episodes", folder, "--task", "car-racing", "--preset", "quick", "--run", run]
    outcome = cases.call(capsys, *words, "--phases", "real", "--executor", "local")
    assert outcome.code == 0 and "2 episodes" in outcome.err and "next: worldmodels train" in outcome.err
    config = json.loads((run / "run.json").read_text())
    assert config["collect"]["missing"] == ["rewards", "ends"] and config["evolution"]["sequence"] == ["real"]
    for words in (["import"], ["import", "dreams"]):
        cases.refused(cases.call(capsys, *words), "expected episodes or weights after import")
    cases.refused(cases.call(capsys, "import", "episodes"), "expected the folder with the recordings")
