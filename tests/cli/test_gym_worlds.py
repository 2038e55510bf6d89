"""Gymnasium environments on the command line: a whole run, options of the environment, and names of files."""

import json
from pathlib import Path
from typing import Any

import pytest

from cases import call, refused
from worldmodels.cli.env_options import value_of_text, without_env
from worldmodels.cli.runs import run_options
from worldmodels.core.errors import UsageError
from worldmodels.core.files import file_name, read_json
from worldmodels.run.reader import RunReader

Capture = pytest.CaptureFixture[str]
DIARY = "gym:gym_worlds:toy/Diary-v0"
_TINY = """
--preset quick --device cpu --executor local --collect.episodes 4 --collect.num-envs 4
--vision.latent-size 4 --vision.epochs 1 --vision.batch 16 --vision.window 2
--memory.hidden-size 8 --memory.mixtures 2 --memory.steps 2 --memory.batch 2 --memory.length 5
--evolution.phases.real.generations 1 --evolution.phases.real.population 4 --evolution.phases.real.episodes 1
--evolution.phases.real.validation-episodes 1 --evolution.phases.real.reevaluate-top-k 1 --evaluate.episodes 2
"""
TINY = _TINY.split()


def test_a_world_is_trained_scored_recorded_and_resumed_without_any_code(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    world = [DIARY, "--env.space", "multi-discrete", "--env.picture=grey", "--env.length", "30"]
    done = call(capsys, "train", *world, *TINY)
    assert done.code == 0, done.err
    run = Path("runs/gym-gym_worlds-toy-Diary-v0-quick-seed1")
    assert RunReader(run).config.env == {"space": "multi-discrete", "picture": "grey", "length": 30}
    agent = RunReader(run).agent()
    assert agent.task.options == RunReader(run).config.env and agent.task.control_size == 3 + 1 + 4
    # The same command, the run alone, and another option.
    again = call(capsys, "train", *world, *TINY)
    assert again.code == 0 and "collect: already done" in again.err
    assert "collect: already done" in call(capsys, "train", "--run", run, "--device", "cpu").err
    refused(call(capsys, "train", DIARY, "--run", run, "--env.length", "31"), "--env.length 30", "use another --run")
    # Verbs that take an agent take its world with it.
    assert call(capsys, "evaluate", "--agent", run, "--episodes", "2", "--json", "score.json").code == 0
    assert read_json(Path("score.json"))["env"]["length"] == 30
    refused(call(capsys, "evaluate", DIARY, "--agent", run, "--env.length", "31"), "--env.length 30", "leave --env out")
    assert call(capsys, "record", DIARY, "--agent", run, "--out", "film.gif", "--steps", "12").code == 0
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)  # without a screen, it makes a film
    assert call(capsys, "watch", "--agent", run, "--steps", "3").code == 0
    assert Path("watch-gym-gym_worlds-toy-Diary-v0.mp4").is_file()
    assert call(capsys, "dream", "record", "--agent", run, "--out", "dream.gif", "--steps", "5").code == 0
    refused(call(capsys, "probe", run), "does not tell its state")
    assert call(capsys, "runs").code == 0


def test_a_random_score_needs_no_agent(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", DIARY, "--policy", "random", "--episodes", "2", "--env.space", "two", "--json", "a.json"]
    assert call(capsys, *arguments).code == 0
    assert read_json(Path("a.json"))["task"] == DIARY


WRONG = {
    "an option of another world": (["train", "car-racing", "--env.colour", "1"], ("car-racing has no option",)),
    "an option the world does not know": (["train", DIARY, "--env.colour", "1"], ("no option 'colour'",)),
    "a value the world does not take": (["collect", DIARY, "--env.picture", "oil"], ("no picture 'oil'",)),
    "no value": (["train", DIARY, "--env.length"], ("expected a value after --env.length",)),
    "no name": (["train", DIARY, "--env.", "3"], ("name of an option",)),
    "a verb without a world": (["runs", "--env.length", "3"], ("worldmodels runs has no --env.length",)),
    "an unknown id": (["train", "gym:CartPoll-v1"], ("did you mean gym:CartPole-v1",)),
    "an unknown id to evaluate": (["evaluate", "gym:CartPoll-v1", "--policy", "random"], ("gym:CartPole-v1",)),
    "no prefix": (["train", "CartPole-v1"], ("did you mean 'gym:CartPole-v1'?",)),
    "no agent": (["watch", "gym:CartPole-v1"], ("no agent for gym:CartPole-v1 ships",)),
    "a broken world": (
        ["train", "gym:gym_worlds:toy/Faulty-v0", "--env.fault", "reset"], ("the battery is empty",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_world_or_option_is_one_line_and_leaves_nothing(
    case: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = WRONG[case]
    refused(call(capsys, *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("0.25", 0.25), ("-1", -1), ("true", True), ("None", None), ("null", None), ("[1, 2]", [1, 2]),
        ("(1, 2)", [1, 2]), ("'a b'", "a b"), ("rgb", "rgb"), ("{\"a\": 1}", {"a": 1}),
        ("nan", "nan"), ("1e999", "1e999"),
        ("__import__('os')", "__import__('os')"), ("", ""),
    ],
)  # fmt: skip
def test_values_are_literals_or_text(text: str, value: Any) -> None:
    assert value_of_text(text) == value and json.dumps(value_of_text(text)) == json.dumps(value)


def test_options_of_the_environment_are_taken_out_of_the_arguments() -> None:
    words = ["gym:X", "--env.max-steps", "-3", "--seed", "2", "--env.mode=fast", "--env.mode=slow"]
    assert without_env(words) == (["gym:X", "--seed", "2"], {"max_steps": -3, "mode": "slow"})
    with pytest.raises(UsageError):
        without_env(["--env.x", "--seed"])


def test_the_preset_of_a_world_can_be_changed_like_any_other() -> None:
    options = run_options("train", [DIARY, "--preset", "quick", "--memory.steps", "7"], "Train.")
    assert options.memory.steps == 7 and options.task == DIARY and options.world["max_steps"] == 50


def test_names_of_files_can_be_read_and_written_everywhere() -> None:
    assert file_name("gym:ale_py:ALE/Pong-v5") == "gym-ale_py-ALE-Pong-v5" and file_name("car-racing") == "car-racing"
    assert file_name("../..") == "unnamed" and "/" not in file_name("a/b\\c:d e")
