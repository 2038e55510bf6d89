"""The command line in a process of its own, with faults at numbered calls.

A fault says ``at`` which function ("os:replace"), at which of its calls (``call``, from 1; of those whose text
arguments match the expression ``match``), before it or ``after`` it, ``do`` what: signals ("SIGINT+SIGINT";
SIGKILL_SELF spares the children), or ENOSPC. So a process dies at a place and not at a time. Episodes are short and
every step of a training is a checkpoint, to keep tests affordable.
"""

import errno
import functools
import importlib
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worldmodels.cli.main import main as command_line

# Heavy, and imported by every process sooner or later: so before processes fork.
for _module in ("cma", "envpool", "tensorboard.compat.proto.event_pb2", "torch._dynamo", "worldmodels.run.experiments"):
    importlib.import_module(_module)

MAX_STEPS = 64


def shorten_the_world() -> None:
    """Give CarRacing episodes of 64 steps."""
    from worldmodels.tasks.car_racing.task import CarRacing

    CarRacing.max_steps = MAX_STEPS


def use_cores(count: int) -> None:
    """Let this process play and compute as on so many cores; there are as many processes of tests as cores already."""
    from worldmodels.execution import process_env, workers

    for module in (process_env, workers):
        module.usable_cores = lambda: count  # type: ignore[attr-defined]


def checkpoint_every_step() -> None:
    """Give V and M a checkpoint after every step."""
    from worldmodels.core.fit import Schedule
    from worldmodels.memory import train as memory
    from worldmodels.vision import train as vision

    for module in (vision, memory):
        module.Schedule = functools.partial(Schedule, checkpoint_seconds=0.0)  # type: ignore[attr-defined]


def install(at: str, do: str, call: int = 1, match: str = "", after: bool = False) -> Callable[[], None]:
    """Put the fault into the function ``at``; the result takes it out again."""
    module, _, path = at.partition(":")
    *parents, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, name), 0

    @functools.wraps(original)
    def faulty(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        meant = re.search(match, _text(arguments)) is not None
        calls += meant
        strikes = meant and calls == call
        if strikes and not after:
            _strike(do)
        result = original(*arguments, **named)
        if strikes and after:
            _strike(do)
        return result

    setattr(owner, name, faulty)
    return lambda: setattr(owner, name, original)


def _text(arguments: tuple[Any, ...]) -> str:
    parts = []
    for one in arguments:
        if isinstance(one, int) and not isinstance(one, bool) and os.path.exists(f"/proc/self/fd/{one}"):
            parts.append(os.readlink(f"/proc/self/fd/{one}"))
        elif isinstance(one, str | os.PathLike):
            parts.append(os.fspath(one))
    return " ".join(parts)


def _strike(do: str) -> None:
    if do == "ENOSPC":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if do == "SIGKILL_SELF":
        os.kill(os.getpid(), signal.SIGKILL)
    for name in do.split("+"):
        number = signal.Signals[name]
        # Ctrl-C reaches everything in the terminal's foreground; the killer of memory or of a scheduler as well.
        if number in (signal.SIGINT, signal.SIGKILL):
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)


def main(
    arguments: Sequence[str], stderr: str, faults: Sequence[Mapping[str, Any]], file_limit: int, cores: int = 1
) -> None:
    """Be the command line: its own process group, stderr to a file, no file larger than ``file_limit`` bytes."""
    os.setsid()
    for path, descriptors in ((os.devnull, (0, 1)), (stderr, (2,))):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        for descriptor in descriptors:
            os.dup2(file, descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    shorten_the_world()
    use_cores(cores)
    if faults:  # else nobody looks at them, and each takes tenths of a second
        checkpoint_every_step()
    for fault in faults:
        install(**fault)
    sys.exit(command_line(list(arguments)))
