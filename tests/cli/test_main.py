"""The command line: its help, what help costs, and how it says no."""

import os
import re
import subprocess
import sys

import pytest

import worldmodels
from worldmodels.cli import main as cli
from worldmodels.cli import measure
from worldmodels.cli.runs import run_options
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.run.presets import preset

HEAVY = ("torch", "gymnasium", "tyro", "numpy", "zarr", "matplotlib", "rich", "tensorboard", "cma", "envpool")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["--version"], ["nonsense"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """A budget of time depends on the machine; what costs time is importing, and that can be counted."""
    code = (
        "import sys\nfrom worldmodels.cli.main import main\n"
        f"main({arguments!r})\nprint('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stdout + done.stderr


def test_help_names_every_verb_and_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    verbs = list(cli._VERBS)
    assert {"train", "collect", "vision", "encode", "memory", "controller", "evaluate"} <= set(verbs)
    assert {"demo", "ablate", "record", "play", "bench", "doctor"} <= set(verbs)
    for verb in verbs:
        assert re.search(rf"^  {verb} +\w", text, re.MULTILINE), verb
    assert "car-racing" in text and all(len(line) <= 100 for line in text.splitlines())


def test_no_arguments_are_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "usage: worldmodels VERB" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"worldmodels {worldmodels.__version__}\n"


def help_of(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "90")  # narrow enough for a single column
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert not stop.value.code
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("verb", list(cli._VERBS))
def test_every_verb_explains_every_option(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(verb, monkeypatch, capsys)
    assert f"worldmodels {verb}" in text
    options = re.findall(r"^[│ ] +(--[a-z][\w.-]*) ", text, re.MULTILINE)
    assert options or verb == "doctor"
    for option in options:
        # its name, its type, and then words instead of a bare "(default: ...)"
        assert re.search(rf"{re.escape(option)} (?:\[.*\]|\S+)[│\s]+[A-Za-z]", text), f"{option} of {verb} has no text"


PROMISED = {
    "train": "--preset --run --seed --device --rounds",
    "collect": "--preset --run --seed --device",
    "evaluate": "--episodes --seed --agent --backend --json --policy",
    "record": "--out --agent --seed --backend",
    "play": "--save --seed",
    "bench": "--json --repeats",
    "demo": "--run --seed",
}


@pytest.mark.parametrize("verb", PROMISED)
def test_the_options_that_are_promised_stay(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(verb, monkeypatch, capsys)
    for option in PROMISED[verb].split():
        assert re.search(rf"(?<!\S){option}\b", text), option


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error that was printed, which is a single line for people."""
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert captured.err.startswith("worldmodels: ")
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["trian"], 2, "unknown verb 'trian'; did you mean 'train'?"),
        (["xyzzy"], 2, "unknown verb 'xyzzy'; see worldmodels --help"),
        (["train", "car-racing", "--wrong", "3"], 2, "--wrong"),
        (["train", "car-racing", "--seed", "one"], 2, "'one'"),
        (["train", "carracing"], 1, "unknown task 'carracing'; did you mean 'car-racing'?"),
        (["train", "car-racing", "--preset", "qick"], 1, "did you mean 'quick'?"),
        (["train", "car-racing", "--collect.backend", "jax"], 1, "unknown backend 'jax'"),
        (["train", "car-racing", "--vision.batch", "0"], 1, "--vision.batch must be at least 1, got 0"),
        (["evaluate", "car-racing", "--episodes", "0"], 1, "--episodes"),
        (["evaluate", "car-racing", "--policy", "lazy"], 1, "unknown policy 'lazy'"),
        (["evaluate", "car-racing", "--agent", "/no/such/agent"], 1, "/no/such/agent"),
        (["evaluate", "pong"], 1, "unknown task 'pong'"),
        (["bench", "juggling"], 1, "juggling"),
    ],
)
def test_mistakes_are_one_line_that_says_what_to_do(
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert cli.main(arguments) == status
    assert message in one_line(capsys)
    assert os.listdir(".") == [], "a refused command left something behind"


def raises(error: BaseException) -> object:
    def verb(*_: object) -> int:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("two\nlines"), 1, "two lines"),
        (interrupt.Interrupted(2), 130, "the same command continues"),
        (interrupt.Interrupted(15), 143, "the same command continues"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "/data/x"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("inner detail\nmore"), 1, "unexpected RuntimeError: inner detail; this is a bug"),
        (ValueError(), 1, "unexpected ValueError: no message"),
    ],
)
def test_whatever_goes_wrong_becomes_one_line_and_a_status(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("WORLDMODELS_DEBUG", raising=False)
    monkeypatch.setattr(measure, "doctor", raises(error))
    assert cli.main(["doctor"]) == status
    assert message in one_line(capsys)


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDMODELS_DEBUG", "1")
    monkeypatch.setattr(measure, "doctor", raises(RuntimeError("inner detail")))
    with pytest.raises(RuntimeError, match="inner detail"):
        cli.main(["doctor"])


def test_signals_are_handled_again_as_before_once_a_verb_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(measure, "doctor", lambda *_: 0)
    assert cli.main(["doctor"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before and not interrupt.requested()


def test_settings_come_from_the_preset_and_the_options_beside_them() -> None:
    options = run_options("train", ["--preset", "quick", "--seed", "7", "--controller.inputs", "z"], "Train.")
    config = options.config()
    assert (config.preset, config.seed, config.controller.inputs) == ("quick", 7, ("z",))
    assert config.evolution == preset("quick").evolution and str(options.directory()) == "runs/car-racing-quick-seed7"


@pytest.mark.parametrize("arguments", [["--phases", "dream", "real-after-dream"], ["--phases=dream"]])
def test_the_phases_of_evolution_have_a_short_name(arguments: list[str]) -> None:
    options = run_options("train", ["car-racing", *arguments], "Train.")
    wanted = ("dream", "real-after-dream") if len(arguments) > 1 else ("dream",)
    assert options.evolution.sequence == wanted
