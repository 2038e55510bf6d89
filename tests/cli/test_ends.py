"""How commands end: results are written before they are printed, and an early end is one line that is true."""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from cases import call, refused
from worldmodels.cli import main as cli
from worldmodels.cli import measure, watch
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

SCORE = ["evaluate", "bin-packing", "--policy", "random", "--episodes", "1", "--steps", "3", "--num-envs", "1"]


def without_a_reader(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A command whose stdout nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return subprocess.run(
            [sys.executable, "-m", "worldmodels", *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=300
        )
    finally:
        os.close(writing)


def test_scores_are_written_even_if_nobody_reads_the_table(tmp_path: Path) -> None:
    done = without_a_reader(*SCORE, "--json", str(tmp_path / "scores.json"))
    assert done.returncode == 141 and b"Traceback" not in done.stderr
    assert len(json.loads((tmp_path / "scores.json").read_text())["returns"]) == 1
    assert os.listdir(tmp_path) == ["scores.json"]


MEASURING = {
    "acting": "Acting",
    "evolution": "_Evolution",
    "vision": "_Vision",
    "dream": "_Dreaming",
    "world": "_World",
}
"""For each benchmark, the class that takes its time."""


@pytest.mark.parametrize("what", MEASURING)
def test_the_figures_of_every_benchmark_are_written_before_they_are_printed(
    what: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    from worldmodels import bench

    module = importlib.import_module(f"worldmodels.bench.{what}")

    def unread(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module, "_print", unread)
    for name in ("interleaved", "figures"):
        monkeypatch.setattr(module, name, lambda *_: {})
    monkeypatch.setattr(module, MEASURING[what], MagicMock(return_value=MagicMock(notes=[])))
    saved: list[dict[str, Any]] = []
    with pytest.raises(BrokenPipeError):
        bench.run_bench(what, "car-racing", 1, save=saved.append)
    assert [figures["what"] for figures in saved] == [what]


def test_the_figures_of_a_probe_are_written_before_they_are_printed(tmp_path: Path, monkeypatch: Patch) -> None:
    from worldmodels.analysis import probe_report

    monkeypatch.setattr(probe_report, "probe_plot", lambda *_: None)
    monkeypatch.setattr(probe_report, "_print", lambda rows: pytest.fail("printed first") if not target.exists() else 0)
    target = tmp_path / "figures.json"
    probe_report.write({"rows": [{"variable": "speed"}], "worlds": {}, "seed": 1}, tmp_path, target)
    assert json.loads(target.read_text())["seed"] == 1


@pytest.mark.parametrize("arguments", [SCORE, ["bench", "world", "--repeats", "1"], ["probe", "car-racing"]])
def test_a_folder_that_is_not_there_is_said_before_the_work_and_not_made(
    arguments: list[str], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "no" / "such" / "x.json"
    line = refused(call(capsys, *arguments, "--json", target), f"could not write {target}", "no folder", "create it")
    assert str(target.parent) in line and os.listdir(tmp_path) == []
    refused(call(capsys, *arguments, "--json", tmp_path), f"could not write {tmp_path}", "it is a folder")


def stopped(*_: object) -> int:
    raise interrupt.Interrupted(signal.SIGINT)


CONTINUE = "everything finished so far is saved, the same command continues"
STOPPED = {
    "evaluate car-racing --json x.json": CONTINUE,
    "evaluate car-racing --json=x.json": CONTINUE,
    "evaluate car-racing --run runs/a": CONTINUE,
    "evaluate car-racing": "nothing is saved; with --json FILE, the same command would continue",
    "dream report car-racing": CONTINUE,
    "dream record car-racing": "the same command starts anew",
    "record car-racing": "the same command starts anew",
    "bench world": "the same command starts anew",
    "probe car-racing": "the same command starts anew",
}


@pytest.mark.parametrize("command", STOPPED)
def test_a_stopped_command_says_whether_it_can_be_continued(command: str, capsys: Capture, monkeypatch: Patch) -> None:
    verb, *rest = command.split()
    module = watch if verb in ("record", "dream") else measure
    monkeypatch.setattr(module, verb, stopped)
    assert cli.main([verb, *rest]) == 130
    assert capsys.readouterr().err == f"worldmodels: stopped; {STOPPED[command]}\n"


def test_every_verb_that_makes_or_continues_a_run_is_known_to_continue() -> None:
    verbs = {verb for verb, (place, _) in cli._VERBS.items() if place.startswith("runs:")}
    assert verbs | {"import", "sample"} == set(cli._CONTINUE)


def test_a_file_that_writes_to_the_terminal_is_shown_as_text(capsys: Capture, monkeypatch: Patch) -> None:
    def refuse(*_: object) -> int:
        raise UserError("\x1b]0;title\x07 is no agent\x9b2J")

    monkeypatch.setattr(measure, "doctor", refuse)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "worldmodels: \\x1b]0;title\\x07 is no agent\\x9b2J\n"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_change_nothing_but_what_is_shown(closed: str, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    words = [sys.executable, "-m", "worldmodels", *SCORE, "--json", str(target)]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(target.read_text())["returns"]) == 1 and b"Traceback" not in done.stderr


def test_a_mistake_is_no_traceback_if_nobody_can_see_it() -> None:
    words = [sys.executable, "-m", "worldmodels", "evaluate", "chess"]
    done = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *words], capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (1, b"")


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size))


def test_too_little_address_space_is_said_in_one_line_before_anything_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worldmodels", *SCORE], capture_output=True, timeout=300, preexec_fn=limited(600 << 20)
    )
    assert (done.returncode, done.stdout) == (1, b"")
    wanted = "worldmodels: expected at least 1,536 MiB of address space, this process may use 600 MiB; raise the limit "
    assert done.stderr.decode() == wanted + "(ulimit -v)\n"


def raising(error: BaseException) -> Callable[..., int]:
    def verb(*_: object) -> int:
        raise error

    return verb


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "out of memory; use fewer"),
        (RuntimeError("std::bad_alloc"), "out of memory; use fewer"),
        (RuntimeError("can't start new thread"), "out of memory; use fewer"),
        (
            ImportError("libtorch.so: wrong ELF class\nand more", name="torch"),
            "cannot import torch: libtorch.so: wrong ELF class; install it again, see worldmodels doctor",
        ),
    ],
)
def test_an_import_that_fails_is_one_line(error: Exception, message: str, capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.delenv("WORLDMODELS_DEBUG", raising=False)
    monkeypatch.setattr(measure, "doctor", raising(error))
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"worldmodels: {message}") and shown.count("\n") == 1


_EARLY = """
import os, signal, sys

class Early:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

# A shell starts processes in the background with Ctrl+C ignored, and these tests may run there.
signal.signal(signal.SIGINT, signal.default_int_handler)
from worldmodels.cli.main import main
for name in [name for name in sys.modules if name.startswith("worldmodels.core")]:
    del sys.modules[name]
sys.meta_path.insert(0, Early())
sys.exit(main(["doctor"]))
"""


@pytest.mark.parametrize("module", ["worldmodels.core.errors", "worldmodels.core.interrupt", "tyro"])
def test_ctrl_c_while_the_command_line_is_being_loaded_is_one_line(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", _EARLY.format(module=module)], capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (130, b"worldmodels: interrupted\n")


def test_the_command_line_imports_little_before_it_handles_ctrl_c() -> None:
    """A signal before that is a traceback, because Python itself still handles it."""
    code = "import sys; before = set(sys.modules); import worldmodels.cli.main; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, env=_path())
    ours = ["worldmodels", "worldmodels.core", "worldmodels.core.errors", "worldmodels.cli", "worldmodels.cli.main"]
    others = set(done.stdout.split()) - set(ours)
    assert set(ours) <= set(done.stdout.split()) and not {"typing", "re", "dataclasses", "inspect"} & others


def _path() -> dict[str, str]:
    import worldmodels

    return os.environ | {"PYTHONPATH": str(Path(worldmodels.__file__).parents[1])}
