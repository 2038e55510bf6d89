"""The page on worlds of one's own: its commands write a package that is found and trained like any other world."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cases import call, refused
from pages import ROOT, commands
from worldmodels.tasks.template import write_task

PAGE = ROOT / "docs" / "how-to" / "own-world.md"
LESS = """
--device cpu --executor local --collect.episodes 2 --vision.epochs 1 --vision.batch 16 --vision.window 2
--memory.steps 2 --memory.batch 2 --memory.length 10 --evaluate.episodes 2
--evolution.phases.real.generations 1 --evolution.phases.real.population 4 --evolution.phases.real.episodes 1
--evolution.phases.real.validation-episodes 1
"""
"""Settings of a run that takes seconds."""


def installed(package: Path, site: Path) -> dict[str, str]:
    """The environment of processes in which a package is installed as pip -e does it, without a network."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    about = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["worldmodels.tasks"]
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (about / "entry_points.txt").write_text(f"[worldmodels.tasks]\n{lines}")
    path = os.pathsep.join([str(package), str(site), *sys.path])
    return os.environ | {"PYTHONPATH": path}


def test_the_commands_of_the_page_make_a_world_that_can_be_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (made,) = [command for command in commands(PAGE) if "new-task" in command]
    assert call(capsys, *shlex.split(made)[1:]).code == 0
    assert "pip install -e my-world" in PAGE.read_text()
    env = installed(tmp_path / "my-world", tmp_path / "site")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worldmodels", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800)

    done = run("train", "my-world", "--preset", "quick", "--run", "run", *LESS.split())
    assert done.returncode == 0, done.stderr
    done = run("record", "my-world", "--agent", "run", "--out", "film.gif", "--steps", "10")
    assert done.returncode == 0, done.stderr
    taken = run("new-task", "my-world", "--out", "other")
    assert taken.returncode == 1 and "is a task called 'my-world' already" in taken.stderr


def test_the_task_of_the_template_is_short_and_its_files_are_as_the_formatter_leaves_them(tmp_path: Path) -> None:
    files = write_task("two-words", tmp_path / "here")
    assert all(path.is_file() for path in files) and sorted(path.name for path in (tmp_path / "here").iterdir()) == [
        "pyproject.toml",
        "two_words_world",
    ]
    task = (tmp_path / "here" / "two_words_world" / "task.py").read_text()
    assert len(task.splitlines()) < 60 and "class TwoWords(Task)" in task
    assert not any("@" in path.read_text().replace("@property", "") for path in files)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "120", str(tmp_path / "here")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "name", ["", "My-World", "my_world", "1st", "a--b", "-a", "a-", "a/b", "../a", "gym:X", "a" * 41, "car-racing"]
)
def test_a_name_that_cannot_be_used_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(call(capsys, "new-task", f"--out=there/{name.strip('./')}", "--", name) if name.startswith("-") else
            call(capsys, "new-task", name))  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    refused(call(capsys, "new-task", "mine"), "exists already")
    refused(call(capsys, "new-task", "mine", "--out", "no/where"), "there is no folder no")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
