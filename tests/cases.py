"""What the tests of resuming, failures and security share: a tiny run, ways to break it, and what must hold then."""

import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from faults import main
from worldmodels.cli.main import main as command_line
from worldmodels.cli.runs import run_options
from worldmodels.run.presets import resolved
from worldmodels.run.run import Run
from worldmodels.tasks import get_task

ROOT = Path(__file__).parents[1]
_PHASE = """
--evolution.phases.NAME.generations 3 --evolution.phases.NAME.population 4 --evolution.phases.NAME.episodes 1
--evolution.phases.NAME.max-steps 8 --evolution.phases.NAME.validate-every 2
--evolution.phases.NAME.validation-episodes 4 --evolution.phases.NAME.reevaluate-top-k 1
"""
"""A validation has as many rows as a generation, so that both are played by the same processes."""
_TINY = """
--collect.episodes 4 --collect.reference-episodes 1 --collect.num-envs 2
--vision.latent-size 8 --vision.epochs 0.5 --vision.batch 16 --vision.window 2
--memory.hidden-size 16 --memory.mixtures 2 --memory.steps 5 --memory.batch 4 --memory.length 20
--evaluate.episodes 2 --evaluate.num-envs 1
"""


def tiny(*phases: str) -> list[str]:
    """Settings of a run, with these phases in its preset, that goes through every stage in seconds."""
    return [*_TINY.split(), *(word for phase in phases for word in _PHASE.replace("NAME", phase).split())]


TINY = [
    *("--rounds", "1", "--evolution.starts", "1", "--evolution.sequence", "real", "finetune"),
    *tiny("real", "finetune", "dream"),
]
"""Settings of a CarRacing run that goes through every stage once, in seconds; with them V takes 6 steps."""

STAGES = {
    "collect": "episodes",
    "vision": "vision",
    "encode": "latents",
    "memory": "memory",
    "controller": "controller",
    "evaluate": "evaluation",
}
"""Folders of the stages by their verbs, in order."""

_VOLATILE = {"lock", "metrics.csv", "elapsed.json", "begun.json"}


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote to stderr."""

    code: int
    err: str


def _server() -> ForkServerContext:
    """Processes are forked from a server that has imported everything, which saves seconds each time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults"])
    with pytest.MonkeyPatch.context() as patch:  # the server finds modules by its environment alone
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in (str(ROOT / "tests"), *sys.path) if path))
        forkserver.ensure_running()
    return context


class Launched:
    """A command line in a process and process group of its own, with faults (see faults.py)."""

    def __init__(
        self, *arguments: str | Path, faults: Sequence[dict[str, Any]] = (), file_limit: int = 0, cores: int = 1
    ) -> None:
        context = _server()
        self._err = Path(tempfile.mkstemp(prefix="stderr-")[1])
        words = [str(one) for one in arguments]
        self._process = context.Process(target=main, args=(words, str(self._err), list(faults), file_limit, cores))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait_until_stopped(self) -> None:
        """Return when the process has stopped itself (SIGSTOP)."""
        while self._process.is_alive():
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return
            time.sleep(0.01)
        raise AssertionError(f"it ended: {self._err.read_text()}")

    def finish(self) -> Outcome:
        """Wait for the end."""
        self._process.join(900)
        assert self._process.exitcode is not None, "the command hangs"
        err = self._err.read_text()
        self._err.unlink()
        return Outcome(self._process.exitcode, err)


def command(
    *arguments: str | Path, faults: Sequence[dict[str, Any]] = (), file_limit: int = 0, cores: int = 1
) -> Outcome:
    """Run a command line in a process of its own, with faults (see faults.py)."""
    return Launched(*arguments, faults=faults, file_limit=file_limit, cores=cores).finish()


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Outcome:
    """Run a command line in this process."""
    capsys.readouterr()
    code = command_line([str(one) for one in arguments])
    return Outcome(code, capsys.readouterr().err)


def begin(run: Path) -> None:
    """Make a run with the settings of the tiny one, none of whose stages is begun."""
    options = run_options("collect", ["car-racing", "--run", str(run), *TINY], "Record episodes.")
    with Run.open(run, resolved(options.config(), get_task(options.task))):
        pass


def refused(outcome: Outcome, *words: str) -> str:
    """Check that a command failed with one clear line that holds all ``words``; progress lines may come before."""
    assert "Traceback" not in outcome.err and "unexpected" not in outcome.err, outcome.err
    lines = outcome.err.strip().splitlines()
    complaints = [line for line in lines if line.startswith("worldmodels: ")]
    assert outcome.code > 0, f"exit status {outcome.code}: {outcome.err}"
    assert len(complaints) == 1 and complaints == lines[-1:], outcome.err
    for word in words:
        assert word in complaints[0], f"expected {word!r} in: {complaints[0]}"
    return complaints[0]


def copy_of(run: Path, target: Path, until: str = "") -> Path:
    """Copy a run; with ``until``, that stage and all after it are as if never begun."""
    shutil.copytree(run, target)
    if until:
        stages = list(STAGES)
        for name in stages[stages.index(until) :]:
            shutil.rmtree(target / "round-1" / STAGES[name])
        for path in (target / "agent", target / "summary.json", target / "curves.png"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return target


def digests(run: Path, stages: Iterable[str] = STAGES, round_number: int = 1) -> dict[str, str]:
    """What finished stages said of the bytes that they wrote, checked against the bytes that are there now."""
    found = {}
    for name in stages:
        folder = run / f"round-{round_number}" / STAGES[name]
        done = json.loads((folder / "done.json").read_bytes())
        for file, digest in done["files"].items():
            assert _digest(folder / file) == digest, folder / file
        found[name] = done["digest"]
    return found


def _digest(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        total.update(str(file.relative_to(path.parent)).encode() + file.read_bytes())
    return total.hexdigest()


def snapshot(run: Path) -> dict[str, str]:
    """Digest of every artefact of a run."""
    return {
        str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in run.rglob("*")
        if file.is_file() and file.name not in _VOLATILE and "tensorboard" not in file.parts
    }


def litter(run: Path) -> list[str]:
    """Files that only an unfinished stage may leave."""
    names = {"begun.json", "elapsed.json", "checkpoint.safetensors", "partial.json"}
    return [str(path) for path in run.rglob("*") if path.name in names or path.name.endswith(".tmp")]


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(path: Path) -> None:
    """Leave nothing of a file but its name."""
    path.write_bytes(b"")


def garble(path: Path) -> None:
    """Replace the content of a file by something of the same size."""
    path.write_bytes(bytes(i % 251 for i in range(path.stat().st_size)))
