"""Signals: the first asks for a stop, another one ends the process with a status that says so."""

import signal
import subprocess
import sys

import pytest

_STOPPED = """
import os, signal
from worldmodels.core import interrupt
try:
    with interrupt.graceful():
        os.kill(os.getpid(), signal.{name})
        interrupt.check()
except interrupt.Interrupted:
    os.kill(os.getpid(), signal.{name})  # while the process is cleaning up
print("not reached")
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_second_signal_after_the_stop_ends_the_process_with_the_status_of_the_signal(name: str, status: int) -> None:
    done = subprocess.run([sys.executable, "-c", _STOPPED.format(name=name)], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, b"", b"")


def test_without_a_signal_the_handlers_are_those_of_before() -> None:
    from worldmodels.core import interrupt

    before = signal.getsignal(signal.SIGTERM)
    with interrupt.graceful():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
