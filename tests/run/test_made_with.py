"""Runs, stages and results record with which versions, processor and device they were made."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import STAGES, TINY, call, copy_of
from faults import MAX_STEPS
from worldmodels.agent import load_agent
from worldmodels.core.provenance import provenance
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.stage import Stage

pytestmark = pytest.mark.usefixtures("short_world")

HERE = provenance(torch.device("cpu"))
ELSEWHERE = HERE | {"cpu": "Another processor", "torch_threads": 77}


def content(path: Path) -> Any:
    return json.loads(path.read_bytes())


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that run now believe that this machine is another one."""
    real = Artifacts.provenance
    changes = {key: ELSEWHERE[key] for key in ("cpu", "torch_threads")}
    monkeypatch.setattr(Artifacts, "provenance", lambda artifacts, device: real(artifacts, device) | changes)


def test_a_run_its_stages_its_agent_and_its_summary_say_what_they_were_made_with(finished: Path) -> None:
    record = content(finished / "run.json")["made_with"]
    assert {"worldmodels", "torch", "gymnasium", "envpool", "box2d"} <= record["versions"].keys()
    assert {"cpu", "cpu_features", "torch_threads", "device", "gpu", "dtype"} <= record.keys()
    for folder in STAGES.values():
        assert content(finished / "round-1" / folder / "done.json")["made_with"] == [record], folder
    summary = content(finished / "summary.json")
    about = {name: summary[name] for name in ("task", "run", "preset", "seed", "rounds", "made_with")}
    assert about == {
        "task": "car-racing", "run": "run", "preset": "standard", "seed": 1, "rounds": 1, "made_with": [record],
    }  # fmt: skip
    info = load_agent(finished).info
    assert (info["preset"], info["seed"], info["round"], info["made_with"]) == ("standard", 1, 1, [record])


def test_the_scores_of_a_run_name_the_run_its_round_and_its_seed(finished: Path) -> None:
    scores = content(finished / "round-1" / "evaluation" / "evaluation.json")
    wanted = {"task": "car-racing", "run": "run", "preset": "standard", "round": 1, "run_seed": 1}
    wanted |= {"episodes": 2, "steps": MAX_STEPS, "cut_short": False, "backend": "gymnasium", "device": "cpu"}
    assert {name: scores[name] for name in wanted} == wanted
    assert "envpool" not in scores["made_with"]["versions"]


def test_a_run_that_goes_on_on_another_processor_says_so_in_one_line(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path / "run", until="controller")
    here = content(run / "run.json")["made_with"]
    elsewhere(monkeypatch)
    command = ("train", "car-racing", "--run", run, "--device", "cpu", *TINY)
    outcome = call(capsys, *command)
    assert outcome.code == 0, outcome.err
    (line,) = (line for line in outcome.err.splitlines() if "was begun with" in line)
    assert f"cpu {here['cpu']}, now Another processor" in line and f"threads {here['torch_threads']}, now 77" in line
    assert "numbers from here on may differ" in line
    folder = run / "round-1"
    assert content(run / "run.json")["made_with"] == here, "where the run began does not change"
    assert content(folder / "memory" / "done.json")["made_with"] == [here]
    there = here | {"cpu": "Another processor", "torch_threads": 77}
    assert content(folder / "controller" / "done.json")["made_with"] == [there]
    assert content(run / "summary.json")["made_with"] == [here, there]
    monkeypatch.undo()
    monkeypatch.setattr("worldmodels.tasks.car_racing.task.CarRacing.max_steps", MAX_STEPS)
    assert "was begun with" not in call(capsys, *command).err


def test_a_stage_lists_every_machine_that_worked_on_it(tmp_path: Path) -> None:
    stage, inputs = Stage("vision", tmp_path), {"vision": {"epochs": 1}, "phases": {"real": {"generations": 2}}}
    for made_with in (HERE, HERE, ELSEWHERE):
        with pytest.raises(KeyboardInterrupt), stage.begin(inputs, made_with):
            raise KeyboardInterrupt
    assert stage.made_with() == [HERE, ELSEWHERE]
    with stage.begin(inputs, HERE) as watch:
        stage.finish(inputs, ("digest", {}), watch.seconds, {})
    assert stage.made_with() == [HERE, ELSEWHERE, HERE]
    longer = inputs | {"phases": {"real": {"generations": 3}}}
    with stage.begin(longer, HERE) as watch:
        stage.finish(longer, ("digest", {}), watch.seconds, {})
    assert stage.made_with() == [HERE, ELSEWHERE, HERE], "more generations continue the work"
    with stage.begin(inputs | {"vision": {"epochs": 2}}, ELSEWHERE):
        assert stage.made_with() == [ELSEWHERE], "other work starts again"


def test_a_run_whose_episodes_are_cut_short_says_that_their_mean_is_no_score(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path / "run")
    command = ("train", "car-racing", "--run", run, "--device", "cpu", *TINY, "--evaluate.steps", "3")
    assert call(capsys, *command).code == 0
    scores = content(run / "round-1" / "evaluation" / "evaluation.json")
    assert scores["steps"] == 3 and scores["cut_short"] and content(run / "summary.json")["evaluation"] == scores
    assert content(run / "round-1" / "evaluation" / "done.json")["metrics"]["cut_short_at_steps"] == 3
    capsys.readouterr()
    assert (
        call(capsys, "evaluate", "car-racing", "--run", run, "--device", "cpu").err.count("cut_short_at_steps 3") == 1
    )


@pytest.mark.parametrize("condition", ["versions", "device"])
def test_the_scores_of_a_run_are_taken_again_under_other_conditions(
    condition: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path / "run")
    command = ("evaluate", "car-racing", "--run", run, "--device", "cpu")
    assert "evaluate: already done" in call(capsys, *command).err
    other = {"backend": "gymnasium", "device": "cpu", "versions": "x"} | {condition: "another"}
    monkeypatch.setattr("worldmodels.run.inputs.conditions", lambda *arguments: other)
    assert "evaluate: already done" not in call(capsys, *command).err
    assert "evaluate: already done" in call(capsys, *command).err
