"""Another program that keeps a core busy, as there is one on most machines."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Inside the block, a process of ordinary priority computes without a pause."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"], stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()
