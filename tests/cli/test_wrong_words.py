"""Words that nobody knows and numbers that make no sense: one clear line, before anything is written."""

from pathlib import Path

import pytest

from cases import call, refused

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


UNKNOWN = {
    "verb": (["tarin", "car-racing"], ["unknown verb 'tarin'", "did you mean 'train'?"]),
    "task": (["train", "car-racin"], ["unknown task 'car-racin'", "did you mean 'car-racing'?"]),
    "another task": (["evaluate", "chess"], ["unknown task 'chess'", "car-racing, car-racing-published, take-cover"]),
    "task to record": (["record", "chess"], ["unknown task 'chess'"]),
    "preset": (["train", "car-racing", "--preset", "qiuck"], ["unknown preset 'qiuck'", "did you mean 'quick'?"]),
    "backend to collect on": (
        ["collect", "car-racing", "--collect.backend", "bullet"],
        ["unknown backend 'bullet'", "choose from fast, envpool, gymnasium"],
    ),
    "backend to evolve on": (["train", "car-racing", "--evolution.backend", "bullet"], ["unknown backend 'bullet'"]),
    "backend to evaluate on": (
        ["evaluate", "car-racing", "--policy", "random", "--episodes", "1", "--backend", "bullet"],
        ["unknown backend 'bullet'"],
    ),
    "policy": (
        ["evaluate", "car-racing", "--policy", "best"],
        ["unknown policy 'best'", "choose agent, follow-road or random"],
    ),
    "device": (["train", "car-racing", "--device", "tpu"], ["--device must be one of auto, cpu, cuda, got 'tpu'"]),
    "executor": (["train", "car-racing", "--executor", "moon"], ["unknown executor 'moon'", "known: local"]),
    "executor of scores": (["evaluate", "car-racing", "--executor", "lokal"], ["did you mean 'local'?"]),
    "strategy": (["train", "car-racing", "--evolution.strategy", "cmaes"], ["unknown strategy 'cmaes'", "'cma'"]),
    "V": (["train", "car-racing", "--vision.model", "conv-vea"], ["unknown vision model", "did you mean 'conv-vae'?"]),
    "phase": (
        ["train", "car-racing", "--phases", "real", "polish"],
        [
            "--evolution.sequence must name phases of this preset (real, visited, refine, finetune, dream, ",
            "'polish'",
        ],
    ),
    "phase twice": (
        ["train", "car-racing", "--phases", "real", "real"],
        ["--evolution.sequence", "each once", "real real"],
    ),
    "no phase": (["train", "car-racing", "--phases"], ["--evolution.sequence must name phases", "got nothing"]),
    "world of a phase": (
        ["train", "car-racing", "--evolution.phases.real.world", "moon"],
        ["--evolution.phases.real.world must be one of real, dream, got 'moon'"],
    ),
    "an option of a phase that there is not": (
        ["train", "car-racing", "--evolution.phases.polish.sigma", "1"],
        ["--evolution.phases.polish.sigma"],
    ),
    "world of another agent": (
        ["evaluate", "take-cover", "--agent", "car-racing"],
        ["car-racing is an agent for car-racing, not for take-cover; use the task car-racing"],
    ),
    "option": (["train", "car-racing", "--vision.epoch", "3"], ["--vision.epoch", "did you mean --vision.epochs?"]),
    "word": (["train", "car-racing", "now"], ["now", "see worldmodels train --help"]),
    "no number": (["collect", "car-racing", "--collect.episodes", "ten"], ["--collect.episodes", "'ten'"]),
    "no value": (["train", "car-racing", "--seed"], ["--seed", "see worldmodels train --help"]),
    "benchmark": (["bench", "sleeping"], ["sleeping"]),
    "sight of the controller": (
        ["train", "car-racing", "--controller.inputs", "z", "q"],
        ["--controller.inputs must be some of z, h, c, got z q"],
    ),
    "agent": (["evaluate", "car-racing", "--agent", "no-such-agent"], ["no agent called 'no-such-agent'"]),
    "way to dream": (["dream", "sing"], ["expected report, play or record, got 'sing'"]),
    "stage of a run that is not there": (["memory", "car-racing"], ["is not a run", "worldmodels train car-racing"]),
}
NUMBERS = [
    *(
        ["train", "car-racing", f"--{option}", value]
        for option in (
            "collect.episodes",
            "vision.batch",
            "memory.steps",
            "evolution.phases.dream.episodes",
            "evaluate.episodes",
        )
        for value in ("0", "-1")
    ),
    ["train", "car-racing", "--collect.reference-episodes", "-1"],
    ["train", "car-racing", "--collect.num-envs", "0"],
    ["train", "car-racing", "--evolution.phases.real.population", "1"],
    ["train", "car-racing", "--vision.lr", "nan"],
    ["train", "car-racing", "--vision.epochs", "inf"],
    ["train", "car-racing", "--memory.lr", "-0.1"],
    ["train", "car-racing", "--rounds", "0"],
    ["train", "car-racing", "--rounds", "1000000000000000000"],
    ["train", "car-racing", "--memory.dream-models", "1000000000000000000"],
    ["train", "car-racing", "--seed", "-1"],
    ["evaluate", "car-racing", "--episodes", "0"],
    ["evaluate", "car-racing", "--num-envs", "-2"],
    ["evaluate", "car-racing", "--seed", "-1"],
    ["record", "car-racing", "--steps", "0"],
    ["bench", "acting", "--repeats", "0"],
    ["dream", "record", "car-racing", "--steps", "0"],
    ["dream", "report", "car-racing", "--report.horizon", "0"],
    ["dream", "report", "car-racing", "--report.temperatures", "1", "-1"],
    ["train", "take-cover", "--dream.temperature", "0"],
    ["train", "car-racing", "--later-round-share", "0"],
    ["train", "car-racing", "--evolution.phases.finetune.generations", "0"],
    ["train", "car-racing", "--evolution.phases.real.sigma-decay", "1.1"],
    ["play", "car-racing", "--seed", "-1"],
    ["probe", "car-racing", "--episodes", "4"],
    ["demo", "--seed", "-1"],
]


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_word_is_named_with_what_to_write_instead(
    case: str, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = UNKNOWN[case]
    refused(call(capsys, *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", NUMBERS, ids=" ".join)
def test_a_number_that_makes_no_sense_is_named_with_what_it_must_be(
    arguments: list[str], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(call(capsys, *arguments), arguments[-2].rpartition(".")[2])
    assert "must be" in line and not list(tmp_path.iterdir())


def test_a_policy_that_is_called_like_a_task_is_not_taken_for_the_task(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcome = call(capsys, "collect", "--policy", "bin-packing", "--run", tmp_path / "run")
    refused(outcome, "expected an agent for car-racing as policy", "bin-packing")
    assert not (tmp_path / "run").exists()
