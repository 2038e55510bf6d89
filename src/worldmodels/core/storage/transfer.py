"""Copying many files, several at a time, with progress; the first error ends it."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from worldmodels.core import interrupt
from worldmodels.core.files import disk_errors
from worldmodels.core.progress import Progress
from worldmodels.core.storage.manifest import Entries, Entry
from worldmodels.core.storage.place import Changed, Missing, Place

_THREADS = 8
_MIB = 1 << 20

Copy = Callable[[str], object]
"""Copies the file of this name."""


def copy_all(
    names: Sequence[str],
    sizes: Entries,
    what: str,
    copy: Copy,
    after: Callable[[str], None],
    interruptible: bool = True,
) -> None:
    """Call ``copy`` for every name, several at a time, and ``after`` in this thread for each that has been copied.

    sizes: of the files, for the progress, which is called ``what`` and counted in MiB; interruptible: whether a signal
    stops it.
    """
    total = sum(sizes[name].size for name in names)
    waiting, running = list(reversed(names)), dict[Future[object], str]()
    done = shown = 0
    with Progress(-(-total // _MIB), what, "MiB") as bar, ThreadPoolExecutor(_THREADS) as threads:
        try:
            while waiting or running:
                if interruptible:
                    interrupt.check()
                while waiting and len(running) < _THREADS:
                    name = waiting.pop()
                    running[threads.submit(copy, name)] = name
                for future in wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    after(name)
                    done += sizes[name].size
                if -(-done // _MIB) > shown:
                    bar.advance(-(-done // _MIB) - shown)
                    shown = -(-done // _MIB)
        except BaseException:
            for future in running:
                future.cancel()
            raise


def fetch(place: Place, name: str, entry: Entry, target: Path) -> None:
    """Copy a file to ``target``, where it appears when it is complete and verified, in place of an older one.

    Raises :class:`Changed` if it is not what ``entry`` says. It is read once more before that, because it may have been
    replaced while it was read.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        for last in (False, True):
            try:
                if place.download(name, entry.size, temporary) == entry.sha256:
                    break
                problem = f"{place.url}/{name} is damaged or was replaced: its checksum is not that of its manifest"
            except (Changed, Missing) as error:
                problem = str(error)
            if last:
                raise Changed(f"{problem}; run again, or copy it there again: worldmodels sync SOURCE TARGET --verify")
        with disk_errors(target):
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
