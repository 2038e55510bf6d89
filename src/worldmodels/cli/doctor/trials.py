"""Python programs that are run in separate processes, so that a library that crashes or hangs affects only a trial."""

import subprocess
import sys
from collections import deque
from collections.abc import Generator, Sequence

from worldmodels.core.cores import usable_cores

_SECONDS = 120.0
"""Time limit of a trial, in seconds."""


def tried(program: str, *arguments: str) -> tuple[bool, str]:
    """Run a Python program; returns whether it succeeded, and the last line of its output or errors."""
    (outcome,) = all_tried(program, [arguments])
    return outcome


def all_tried(program: str, arguments: Sequence[Sequence[str]]) -> Generator[tuple[bool, str], None, None]:
    """The outcomes of a program for several arguments, in their order; one process per core runs at a time.

    Closing the generator kills the processes that are still running.
    """
    waiting, running = deque(arguments), deque[subprocess.Popen[str] | OSError]()
    try:
        while waiting or running:
            while waiting and len(running) < usable_cores():
                running.append(_started(program, waiting.popleft()))
            yield _outcome(running[0])
            running.popleft()
    finally:
        for process in running:
            if isinstance(process, subprocess.Popen):
                process.kill()
                process.communicate()


def _started(program: str, arguments: Sequence[str]) -> "subprocess.Popen[str] | OSError":
    command = [sys.executable, "-c", program, *arguments]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        return error


def _outcome(process: "subprocess.Popen[str] | OSError") -> tuple[bool, str]:
    if isinstance(process, OSError):
        return False, one_line(process)
    try:
        output, errors = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False, f"did not end within {_SECONDS:g} s"
    if process.returncode < 0:
        return False, f"crashed with signal {-process.returncode}"
    works = process.returncode == 0
    lines = (output if works else errors).strip().splitlines()
    return works, lines[-1] if lines else f"ended with code {process.returncode}"


def one_line(error: BaseException) -> str:
    """The type and the last line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
