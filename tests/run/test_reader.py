"""Looking into a run: everything that is finished can be read, by anyone, at any time, and nothing changes."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cases import STAGES, Launched, copy_of
from worldmodels.agent import load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.files import write_json
from worldmodels.run import stage
from worldmodels.run.reader import RunReader

pytestmark = pytest.mark.usefixtures("short_world")


def everything(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below a directory, with the time of its last change and its content."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [directory, *directory.rglob("*")]
    }


@pytest.fixture
def unchanged(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A finished run that must be afterwards as it was before."""
    run = copy_of(finished, tmp_path / "run")
    before = everything(run)
    yield run
    assert everything(run) == before


def test_all_of_a_finished_run_can_be_read(unchanged: Path) -> None:
    run = RunReader(unchanged)
    assert (run.directory, run.rounds, run.config.task, run.config.collect.episodes) == (unchanged, 1, "car-racing", 4)
    settings = "task='car-racing', preset='standard', seed=1"
    assert repr(run) == f"RunReader({str(unchanged)!r}, {settings}, 6 of 6 stages finished)"
    done = [json.loads((unchanged / "round-1" / folder / "done.json").read_bytes()) for folder in STAGES.values()]
    assert [(stage.round, stage.name, stage.state) for stage in run.stages()] == [
        (1, name, "finished") for name in STAGES
    ]
    assert [stage.seconds for stage in run.stages()] == [one["seconds"] for one in done]
    assert [stage.metrics for stage in run.stages()] == [one["metrics"] for one in done]
    assert run.summary() == json.loads((unchanged / "summary.json").read_bytes())
    assert run.evaluation() == run.summary()["evaluation"]


def test_episodes_latents_and_agent_of_a_finished_run_fit_each_other(unchanged: Path) -> None:
    run = RunReader(str(unchanged))
    assert [len(shard.lengths) for shard in run.shards()] == [2, 2, 1]
    episodes, latents, agent = list(run.episodes()), run.latents(), run.agent()
    assert [len(one.actions) for one in episodes] == latents.lengths.tolist()
    assert sum(len(one.frames) for one in episodes) == len(latents.mu)
    mu, _ = agent.encode(episodes[0].frames[:3])
    torch.testing.assert_close(mu, latents.mu[:3].float(), atol=0.05, rtol=0.05)
    assert agent.digest() == load_agent(unchanged).digest()
    rounded = {name: value.half().float() for name, value in run.vision().state_dict().items()}
    assert all(torch.equal(rounded[name], value) for name, value in agent.vision.state_dict().items())


def test_what_was_measured_is_read_by_the_name_of_the_stage_or_of_the_phase(unchanged: Path) -> None:
    run = RunReader(unchanged)
    found = run.metrics("collect")
    assert found["step"].tolist() == [2, 4, 5] and set(found) == {
        "step",
        "mean_return",
        "mean_length",
        "episodes_per_s",
    }
    assert run.metrics("controller/1-real")["step"].tolist() == [1, 2, 3]
    validation = run.metrics("controller/2-finetune")["validation"]
    assert np.isnan(validation).tolist() == [True, False, False]
    assert run.metrics("evaluate")["return"].tolist() == run.evaluation()["returns"]
    assert run.metrics("controller") == run.metrics("controller/3-none") == run.metrics("vision", 2) == {}
    with pytest.raises(UserError, match="unknown stage 'episodes'; choose from collect, vision"):
        run.metrics("episodes")


def test_a_run_that_another_process_is_writing_can_be_read_as_far_as_it_is(finished: Path, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path / "run", until="vision")
    stopping = {"at": "worldmodels.vision.conv_vae:vae_loss", "call": 3, "do": "SIGSTOP"}
    writer = Launched("train", "car-racing", "--run", directory, faults=[stopping])
    try:
        writer.wait_until_stopped()
        with open(directory / "lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = everything(directory)
        run = RunReader(directory)
        states = {stage.name: stage.state for stage in run.stages()}
        assert list(states.values()) == ["finished", "begun", "waiting", "waiting", "waiting", "waiting"]
        assert len(list(run.episodes())) == 5
        assert run.metrics("vision") == {} and run.metrics("memory") == {}
        for ask, stage in ((run.vision, "vision"), (run.latents, "encode"), (run.agent, "controller")):
            with pytest.raises(UserError, match=f"the {stage} stage of .* is not finished; run: worldmodels {stage} "):
                ask()
        with pytest.raises(UserError, match="the evaluate stage"):
            run.evaluation()
        with pytest.raises(UserError, match=r"summary\.json does not exist"):
            run.summary()
        assert everything(directory) == before
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.finish()


def test_shards_are_seen_as_they_come(finished: Path, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path / "run", until="collect")
    stopping = {"at": "worldmodels.data.episodes:EpisodeStore.write", "call": 2, "do": "SIGSTOP"}
    writer = Launched("collect", "car-racing", "--run", directory, faults=[stopping])
    try:
        writer.wait_until_stopped()
        run = RunReader(directory)
        assert len(run.shards()) == 1 and len(list(run.episodes())) == 2
        assert run.metrics("collect")["step"].tolist() == [2]
        assert run.stages()[0].state == "begun"
    finally:
        os.killpg(writer.pid, signal.SIGKILL)
        writer.finish()


def test_a_note_that_is_taken_away_while_it_is_read_is_no_error(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process whose run it is goes on: it takes ``done.json`` away and begins."""
    run = RunReader(copy_of(finished, tmp_path / "run"))

    def too_late(path: Path, **options: bool) -> None:
        path.rename(path.with_name("begun.json"))
        raise UserError(f"{path} does not exist")

    monkeypatch.setattr(stage, "read_json", too_late)
    assert [one.state for one in run.stages()] == ["begun"] * 6


def test_a_damaged_note_is_an_error(finished: Path, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path / "run")
    (directory / "round-1" / "memory" / "done.json").write_text("{")
    with pytest.raises(UserError, match=r"memory/done\.json is damaged"):
        RunReader(directory).stages()


def test_rounds_are_read_as_they_begin(finished: Path, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path / "run")
    content = json.loads((directory / "run.json").read_bytes())
    del content["checksum"]
    write_json(directory / "run.json", content | {"rounds": 2}, checksum=True)
    run = RunReader(directory)
    assert run.rounds == 1 and len(run.stages()) == 5 + 6
    assert [stage.state for stage in run.stages()[5:]] == ["waiting"] * 6
    (directory / "round-2" / "episodes").mkdir(parents=True)
    assert run.rounds == 2 and len(list(run.episodes())) == 5
    # What the second round has not made yet is that of the first.
    assert run.agent().digest() == RunReader(finished).agent().digest()


@pytest.mark.parametrize("what", ["nothing", "an empty folder", "an agent", "a file"])
def test_a_place_that_is_no_run_says_so_and_stays_as_it_is(what: str, finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if what == "an empty folder":
        place.mkdir()
    elif what == "an agent":
        load_agent(finished).save(place)
    elif what == "a file":
        place.write_text("a file")
    before = everything(tmp_path)
    with pytest.raises(UserError, match=f"{place} is not a run: it has no run.json"):
        RunReader(place)
    assert everything(tmp_path) == before


def test_a_run_of_an_older_version_says_so(finished: Path, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path / "run")
    content = json.loads((directory / "run.json").read_bytes())
    write_json(
        directory / "run.json",
        {name: value for name, value in content.items() if name not in ("layout", "checksum")},
        checksum=True,
    )
    before = everything(directory)
    with pytest.raises(UserError, match="was made by an older version of worldmodels") as refusal:
        RunReader(directory)
    assert "\n" not in str(refusal.value) and everything(directory) == before
