"""``worldmodels doctor``: what works on this machine, what does not, what to install, and which worlds are ready.

Every check does what it reports: it steps a world, writes a video, or loads an agent. A check that fails gives a row
that says what to do, and never a traceback.
"""

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType

from worldmodels.cli.doctor import machine, worlds
from worldmodels.cli.doctor.rows import Check, Row
from worldmodels.core.terminal import console, printable

_WIDTH = 30
"""Width of the names of the checks, in characters."""


@dataclass(frozen=True)
class Verdict:
    """Whether a world can be trained and scored here, and a line of text about it."""

    trainable: bool
    text: str


def checks() -> list[Check]:
    """All checks, the fast ones first."""
    return [
        Check("python", machine.python, needed=True),
        Check("cores", machine.cores),
        Check("memory", machine.memory),
        Check("disk", machine.disk),
        Check("libraries", machine.libraries, needed=True),
        Check("processor", machine.processor),
        Check("gpu", machine.gpu),
        Check("zarr with zstd", machine.storage, needed=True),
        Check("mp4 videos", lambda: machine.film("mp4", "pip install imageio-ffmpeg")),
        Check("gif videos", lambda: machine.film("gif", "pip install imageio pillow")),
        Check("window", machine.window),
        Check("shipped agents", machine.agents),
        Check("libraries of the worlds", worlds.world_libraries),
        Check("worlds", worlds.worlds),
    ]


def report() -> Iterator[Row]:
    """All rows, as soon as their checks have finished; the last take some ten seconds. Raises nothing."""
    for check in checks():
        yield from check.guarded()


def main() -> int:
    """Print all rows as soon as they are known, then a verdict on each world.

    Returns 1 if something that all training needs is broken, or if no world can be trained, else 0.
    """
    from rich.text import Text

    shown, rows = console(soft_wrap=True), list[Row]()
    with _interrupted_at_once():
        for row in report():
            mark = ("ok", "green") if row.works else ("no", "bold red" if row.needed else "yellow")
            shown.print(Text.assemble(mark, f"  {row.what:<{_WIDTH}} {printable(row.found)}"))
            if not row.works and row.fix:
                shown.print(Text(f"{'':<{_WIDTH + 5}}{row.fix}"))
            rows.append(row)
    broken = [row.what for row in rows if row.needed and not row.works]
    verdicts = verdicts_of(rows)
    shown.print()
    for verdict in verdicts:
        shown.print(Text(printable(verdict.text), "green" if verdict.trainable else "yellow"))
    if broken:
        shown.print(Text(f"Nothing can be trained before this is repaired: {', '.join(broken)}.", "bold red"))
    elif not any(verdict.trainable for verdict in verdicts):
        shown.print(Text("No world can be trained here.", "bold red"))
    else:
        return 0
    return 1


def verdicts_of(rows: Iterable[Row]) -> list[Verdict]:
    """A verdict on every world in the rows, which is trainable if its reference backend works."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        if row.task:
            by_task.setdefault(row.task, []).append(row)
    return [_verdict(task, task_rows) for task, task_rows in by_task.items()]


def _verdict(task: str, rows: list[Row]) -> Verdict:
    failed = [row for row in rows if not row.works]
    if not failed:
        return Verdict(True, f"{task}: ready")
    for row in failed:
        if row.reference:
            return Verdict(False, f"{task}: {row.found}; {row.fix}")
    works = ", ".join(row.backend for row in rows if row.works)
    return Verdict(True, f"{task}: ready on {works}; {failed[0].backend}: {failed[0].found}; {failed[0].fix}")


@contextlib.contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM end the process at once, because there is nothing to save."""

    def terminated(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminated}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
