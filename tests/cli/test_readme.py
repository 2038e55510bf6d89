"""Every command and every line of Python in the README is run, with less work where it would take minutes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pages
from pages import README
from worldmodels.cli import main as cli
from worldmodels.cli.runs import run_options

COMMANDS = pages.commands(README)
LESS_OF_A_STAGE = {
    "collect": "--collect.episodes 2 --collect.reference-episodes 1 --collect.steps 80",
    "vision": "--vision.epochs 1 --vision.batch 32",
    "encode": "",
    "memory": "--memory.steps 2 --memory.batch 4 --memory.length 30",
    "controller": "--evolution.backend '' --evolution.components 8",
    "evaluate": "--evaluate.episodes 2 --evaluate.steps 40",
}
LESS_OF_A_PHASE = "generations 1,population 4,episodes 1,max-steps 20,validation-episodes 4,reevaluation-episodes 2"
LESS = {
    "evaluate": "--episodes 2 --steps 40",
    "record": "--steps 20",
    "probe": "--episodes 5 --frames 4 --steps 20",
    "bench": "--repeats 1 --steps 5",
    "doctor": "",
    "new-task": "",
    "runs": "",
    "watch": "--steps 20",
    "play": "",
    "dream play": "",
    "dream record": "--steps 20",
    "dream report": (
        "--report.episodes 2 --report.horizon 5 --report.starts 1 --report.controllers 3 "
        "--report.controller-episodes 1 --report.generations 0 --report.games 2 --report.steps 20"
    ),
}
"""What is added to a command so that it takes seconds."""

A_PERSON_WHO_LEAVES = """
import sys
from worldmodels.play import window
from worldmodels.cli.main import main

show, ticks = window.show, iter(range(1_000))


def press_keys(viewer):
    tick = next(ticks)
    viewer.press({2: "up", 4: "a", 8: "enter", 12: "escape"}.get(tick, "b"))


window.show = lambda make, tick=None: show(make, press_keys)
status = main(sys.argv[1:])
assert next(ticks) == 13, "the window was closed before Esc was pressed, or not by it"
sys.exit(status)
"""
"""The command line, and keys that are pressed in the window that it opens; the last is Esc."""


A_SHORTER_WORLD = """
import sys
from worldmodels.cli.main import main
from worldmodels.tasks.car_racing.task import CarRacing

CarRacing.max_steps = 100
sys.exit(main(sys.argv[1:]))
"""
"""The command line, for trainings, whose validations are always of whole episodes."""


def less(words: list[str]) -> list[str]:
    """Options with which a command does as little as possible of everything."""
    verb, rest = words[0], words[1:]
    if (verb in LESS_OF_A_STAGE and verb != "evaluate") or verb in ("train", "ablate") or "--run" in rest:
        stages = LESS_OF_A_STAGE if verb in ("train", "ablate") else {verb: LESS_OF_A_STAGE[verb]}
        if any(word.startswith("gym:") for word in rest):  # their episodes may be short
            stages = stages | {"collect": "--collect.episodes 16"}
        added = shlex.split(" ".join(stages.values()))
        if "controller" in stages:
            for phase in run_options(verb, rest, "").evolution.sequence:
                for setting in LESS_OF_A_PHASE.split(","):
                    name, value = setting.split()
                    added += [f"--evolution.phases.{phase}.{name}", value]
        return added
    return shlex.split(LESS[f"dream {rest[0]}" if verb == "dream" else verb])


def run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all commands, in the README's order, as a reader would have it."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_can_run(command: str, folder: Path) -> None:
    words = shlex.split(command)[1:]
    program = ["-m", "worldmodels"]
    if words[0] == "play" or words[:2] == ["dream", "play"]:
        program = ["-c", A_PERSON_WHO_LEAVES]
    elif words[:2] == ["train", "car-racing"]:
        program = ["-c", A_SHORTER_WORLD]
    result = run([*program, *words, *less(words)], folder)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Traceback" not in result.stderr


def test_every_kind_of_command_is_in_the_readme() -> None:
    verbs = {shlex.split(command)[1] for command in COMMANDS}
    assert {"train", "evaluate", "record", "play", "dream", "bench", "doctor", "collect"} <= verbs


def test_every_verb_and_option_that_the_readme_mentions_exists(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub(r"```python.*?```", "", README.read_text(), flags=re.DOTALL)
    mentioned = set(re.findall(r"(?:`|^)worldmodels ([a-z][a-z-]*)", text, re.MULTILINE))
    assert mentioned and mentioned <= set(cli._VERBS)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    known = {"--help", "--help-all", "--version", "--phases", "--policy"}
    for verb in cli._VERBS:
        for where in ([], ["--run", "runs/none"]) if verb == "evaluate" else ([],):
            with pytest.raises(SystemExit):
                cli.main([verb, *where, "--help-all"])
            known |= set(re.findall(r"(?<!\S)(--[a-z][\w.-]*)", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])(--[a-z][\w.-]*\w)", text)) <= known


def test_the_python_example_runs_as_it_stands(folder: Path) -> None:
    blocks = pages.blocks(README, "python")
    assert blocks
    for block in blocks:
        result = run(["-c", block.text], folder)
        assert result.returncode == 0, result.stderr[-2000:]
