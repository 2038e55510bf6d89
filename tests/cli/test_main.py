"""The command line: its help, what help costs, and how it says no."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import worldmodels
from worldmodels.cli import main as cli
from worldmodels.cli import measure
from worldmodels.cli.exchange import WHATS
from worldmodels.cli.options import agent_for, parse
from worldmodels.cli.runs import run_options
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import read_json, write_json
from worldmodels.core.settings import to_json
from worldmodels.run.presets import preset

VERBS = list(cli._VERBS)
RUN_VERBS = ("train", "collect", "vision", "encode", "memory", "controller", "ablate")
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


def test_signs_that_the_terminals_encoding_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="strict"))
    monkeypatch.setattr(cli, "_help", lambda: "narrow \u2026 table")
    assert cli.main(["--help"]) == 0
    assert written.getvalue() == b"narrow ? table\n"


def test_no_arguments_are_a_question_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "usage: worldmodels VERB" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"worldmodels {worldmodels.__version__}\n"


Help = Callable[..., str]


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Help:
    """The help that arguments ask for."""
    monkeypatch.setenv("COLUMNS", "90")  # narrow enough for a single column
    monkeypatch.setenv("NO_COLOR", "1")

    def ask(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
        assert not stop.value.code
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return ask


@pytest.mark.parametrize("word", ["-h", "--help", "--help-all"])
@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_says_what_the_verb_does(verb: str, word: str, help_of: Help) -> None:
    text = help_of(verb, word)
    assert text.startswith(f"usage: worldmodels {verb} ")
    described = text.split("\n\n")[1]
    assert re.match(r"[A-Z].* .*\.$", described.splitlines()[0]), f"{verb} does not say what it does: {described}"
    assert "{None}" not in text and "None" not in re.findall(r"default: ([^)]*)", text)


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_the_help_of_a_run_is_short_and_says_where_every_setting_is_listed(verb: str, help_of: Help) -> None:
    short, every = help_of(verb, "--help"), help_of(verb, "--help-all")
    assert f"worldmodels {verb} --help-all lists every setting." in short and len(short) < len(every)
    if verb == "train":
        assert len(short.splitlines()) <= 60


@pytest.mark.parametrize("verb", ["train", "collect", "evaluate"])
def test_help_all_names_every_setting_of_the_preset(verb: str, help_of: Help) -> None:
    def names(content: dict[str, Any], where: str = "") -> list[str]:
        found = []
        for key, value in content.items():
            found += names(value, f"{where}{key}.") if isinstance(value, dict) else [f"{where}{key}"]
        return found

    where = ["--run", "runs/none"] if verb == "evaluate" else []
    text = help_of(verb, "--preset", "dream", *where, "--help-all")
    wanted = names({key: value for key, value in to_json(preset("dream")).items() if key != "task"})
    assert len(wanted) > 100
    for name in wanted:
        assert re.search(rf"(?<!\S)--{re.escape(name.replace('_', '-'))} ", text), name


def test_help_shows_the_values_of_the_preset_and_of_the_run_that_are_asked_about(help_of: Help, tmp_path: Path) -> None:
    assert "(at least 1; default: 32)" in help_of("collect", "--preset", "quick", "--help")
    config = preset("quick")
    write_json(
        tmp_path / "run.json",
        {"layout": 2, **to_json(replace(config, collect=replace(config.collect, episodes=12_345)))},
        checksum=True,
    )
    words = re.findall(r"[^\s│]+", help_of("collect", "--run", str(tmp_path), "--help"))
    assert "(at least 1; default: 12345)" in " ".join(words)


@pytest.mark.parametrize("word", ["--help", "--help-all"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_every_option(verb: str, word: str, help_of: Help) -> None:
    text = help_of(verb, word)
    options = re.findall(r"^[│ ] +(--[a-z][\w.-]*)(?:, --no-[\w.-]+)? ", text, re.MULTILINE)
    listed_elsewhere = verb == "doctor" or (verb in WHATS and word == "--help")
    assert options or listed_elsewhere
    for option in options:
        # its name, its type, and then words instead of a bare "(default: ...)"
        assert re.search(rf"{re.escape(option)}(?:, --no-\S+)? +(?:\[.*\]|\S+)[│\s]+[A-Za-z]", text), (
            f"{option} of {verb} has no text"
        )


READS = {"train": "a run", "collect": "round-N/episodes", "vision": "round-N/vision", "encode": "round-N/latents"}
READS |= {"memory": "round-N/memory", "controller": "round-N/controller", "ablate": "ablation.json"}


@pytest.mark.parametrize("verb", READS)
def test_the_help_of_a_stage_begins_with_what_it_does_reads_and_writes(verb: str, help_of: Help) -> None:
    does, files = help_of(verb, "--help").split("\n\n")[1:3]
    assert does.endswith(".")
    assert re.search(r"Reads .*\. Writes ", " ".join(files.split())) and READS[verb] in files


def test_the_help_of_evaluate_says_how_a_run_is_scored(help_of: Help) -> None:
    assert "--run RUN" in help_of("evaluate", "--help")
    files = " ".join(help_of("evaluate", "--run", "runs/none", "--help").split())
    assert "Reads round-N/controller. Writes round-N/evaluation" in files


PROMISED = {
    "train": "--preset --run --seed --device --rounds --executor --from",
    "collect": "--preset --run --seed --device",
    "evaluate": "--episodes --seed --agent --backend --json --policy --num-envs --executor",
    "record": "--out --agent --seed --backend",
    "play": "--save --seed",
    "bench": "--json --repeats",
    "demo": "--run --seed",
    "runs": "--json",
}


@pytest.mark.parametrize("verb", PROMISED)
def test_the_options_that_are_promised_stay(verb: str, help_of: Help) -> None:
    text = help_of(verb, "--help")
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
        (interrupt.Interrupted(2), 130, "stopped; the same command starts anew"),
        (interrupt.Interrupted(15), 143, "stopped; the same command starts anew"),
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


def test_the_settings_of_a_phase_have_options_by_its_name() -> None:
    options = run_options("train", ["--evolution.phases.dream.generations", "7", "--phases", "dream"], "Train.")
    wanted = preset("standard").evolution
    assert options.evolution.phases == wanted.phases | {"dream": replace(wanted.phases["dream"], generations=7)}


@pytest.mark.parametrize("arguments", [["car-racing"], [], ["--agent", "car-racing-dream"]])
def test_the_task_need_not_be_said_where_an_agent_says_it(arguments: list[str]) -> None:
    options = parse(measure.EvaluateOptions, "evaluate", arguments)
    assert agent_for(options.task, options.agent).task.name == "car-racing"


def test_an_agent_says_the_task_to_other_policies_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = tmp_path / "scores.json"
    words = [
        "--agent",
        "bin-packing",
        "--policy",
        "best-fit",
        "--episodes",
        "2",
        "--steps",
        "10",
        "--json",
        str(scores),
    ]
    assert cli.main(["evaluate", *words]) == 0
    assert read_json(scores)["task"].startswith("bin-packing") and read_json(scores)["agent"] == "best-fit"
    assert "best-fit" in capsys.readouterr().out


def test_the_task_of_an_agent_is_not_taken_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["record", "bin-packing", "--agent", "car-racing-dream"]) == 1
    assert "is an agent for car-racing, not for bin-packing" in one_line(capsys)


@pytest.mark.parametrize("closed", ["the reader has gone", "it is closed"])
def test_work_goes_on_to_its_end_when_nobody_reads_its_progress(tmp_path: Path, closed: str) -> None:
    run = tmp_path / "run"
    words = ["collect", "bin-packing", "--collect.episodes", "4", "--collect.num-envs", "2", "--run", str(run)]
    command = [sys.executable, "-m", "worldmodels", *words]
    reading, writing = os.pipe()
    os.close(reading)
    if closed == "it is closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=writing, timeout=300)
    os.close(writing)
    assert done.returncode == 0 and (run / "round-1" / "episodes" / "done.json").exists()


def test_a_reader_of_the_output_that_ends_early_is_no_success() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "worldmodels", "--help"], stdout=writing, stderr=subprocess.PIPE, timeout=300
    )
    os.close(writing)
    assert done.returncode != 0 and b"Traceback" not in done.stderr
