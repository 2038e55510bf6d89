"""Every command in the README and the documentation is one that the command line accepts."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from pages import PAGES, commands, mentioned, name_of
from worldmodels.cli import main as cli
from worldmodels.cli import options, places
from worldmodels.cli.runs import RunOptions
from worldmodels.core.errors import UserError
from worldmodels.data.collectors import check_policy
from worldmodels.run.presets import preset, resolved
from worldmodels.run.run import Run
from worldmodels.tasks import get_task

COMMANDS = [
    pytest.param(command, id=f"{name_of(page)}: {command}")
    for page in PAGES
    for command in dict.fromkeys([*commands(page), *mentioned(page)])
]


class Parsed(BaseException):
    """The arguments were parsed and checked. No subclass of Exception, so that the command line does not catch it."""


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that parses a command, and raises Parsed before it does anything. A run after --from exists."""
    check = options.check

    def checked(settings: Any) -> None:
        check(settings)
        if getattr(settings, "task", None) is not None:
            get_task(settings.task)
        if isinstance(settings, RunOptions):
            check_policy(get_task(settings.task), settings.collect.policy)
        raise Parsed

    def parse(command: str) -> None:
        words = shlex.split(command)
        assert words[0] == "worldmodels"
        if "--from" in words:
            config = preset("quick", "car-racing")
            with Run.open(Path(words[words.index("--from") + 1]), resolved(config, get_task(config.task))):
                pass
        cli._dispatch(words[1:])

    monkeypatch.setattr(options, "check", checked)
    monkeypatch.setattr(places, "_local", lambda stack, verb, flag, url: Path(url))  # no bucket is asked
    monkeypatch.chdir(tmp_path)
    return parse


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_accepts(command: str, parses: Any, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parses(command)
    except (Parsed, SystemExit) as stop:  # SystemExit: --help
        assert isinstance(stop, Parsed) or not stop.code
    else:
        assert capsys.readouterr().out, "neither parsed nor answered"


@pytest.mark.parametrize(
    "command",
    [
        "worldmodels train car-racing --no-such-option 1",
        "worldmodels train car-racing --preset quik",
        "worldmodels train car-racing --vision.epochs -1",
        "worldmodels evaluate car-racing --episodes many",
        "worldmodels train car-raving",
        "worldmodels collect car-racing --policy rainbow",
    ],
)
def test_a_wrong_command_would_be_found(command: str, parses: Any) -> None:
    with pytest.raises(UserError):
        parses(command)


def test_commands_are_found_in_blocks_and_in_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Say `worldmodels evaluate\ncar-racing --seed 2`, or `worldmodels VERB --help`.\n\n"
        "```bash\nX=1 worldmodels doctor  # why\nworldmodels record car-racing\npip install worldmodels\n```\n"
    )
    assert commands(page) == ["worldmodels doctor", "worldmodels record car-racing"]
    assert mentioned(page) == ["worldmodels evaluate car-racing --seed 2"]
