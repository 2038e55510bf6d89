"""Every command and every line of Python in the README is run, with less work where it would take minutes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
TINY_RUN = (
    "--collect.episodes 2 --collect.reference-episodes 1 --collect.steps 80 --vision.epochs 1 --vision.batch 32 "
    "--memory.steps 2 --memory.batch 4 --memory.length 30 --controller.generations 1 --controller.population 4 "
    "--controller.episodes 1 --controller.horizon 20 --controller.validation-episodes 2 "
    "--evaluate.episodes 2 --evaluate.steps 40"
)
LESS = {
    "collect": "--collect.episodes 2 --collect.steps 80",
    "train": TINY_RUN,
    "evaluate": "--episodes 2 --steps 40",
    "record": "--steps 20",
    "bench": "--repeats 1 --steps 5",
    "doctor": "",
    "dream record": "--steps 20",
    "dream report": (
        "--report.episodes 2 --report.horizon 5 --report.starts 1 --report.controllers 3 "
        "--report.controller-episodes 1 --report.generations 0 --report.steps 20"
    ),
}
"""What is added to a command so that it takes seconds."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("worldmodels ")]


def run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all commands, in the README's order, as a reader would have it."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize("command", commands())
def test_a_reader_can_run(command: str, folder: Path) -> None:
    words = shlex.split(command)[1:]
    verb = " ".join(words[:2]) if words[0] == "dream" else words[0]
    if verb in ("play", "dream play"):  # a game waits for a person: test_play and test_play_dream play it
        words = [words[0], "--help"]
    else:
        words += shlex.split(LESS[verb])
    result = run(["-m", "worldmodels", *words], folder)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "Traceback" not in result.stderr


def test_the_python_example_runs_as_it_stands(folder: Path) -> None:
    for block in blocks("python"):
        result = run(["-c", block], folder)
        assert result.returncode == 0, result.stderr[-2000:]


def test_the_pictures_of_the_readme_exist() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README.read_text())
    assert pictures
    for picture in pictures:
        assert (README.parent / picture).is_file(), picture


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for link in re.findall(r"[^!]\[[^\]]*\]\((?!http)(.*?)\)", README.read_text()):
        assert (README.parent / link).exists(), link
