"""What the tests of buckets share: an S3 server in a process of its own, which can go away and come back."""

import atexit
import contextlib
import functools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SERVE = """
import logging, sys, time
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(3600)
"""
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",
}


class Door:
    """A port of this machine that leads to another one, until it is closed."""

    def __init__(self, behind: int) -> None:
        self._behind, self._open = behind, list[socket.socket]()
        self.port = 0
        self.open()

    def open(self) -> None:
        """Let everybody through, by the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Let nobody through, and end what is under way."""
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
                self._open += [caller, server]
                for one, other in ((caller, server), (server, caller)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Server:
    """An S3 server; what it holds ends with its process, but not when it is :meth:`away`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = ""
        while not line.strip().isdigit():
            line = self._process.stdout.readline()
            assert line, "the server has ended"
        self._door = Door(int(line))
        self.url = f"http://127.0.0.1:{self._door.port}"
        self.away, self.back = self._door.close, self._door.open

    @property
    def files(self) -> Any:
        """The files of all buckets, by another way than that of the package."""
        import fsspec

        return fsspec.filesystem("s3", endpoint_url=self.url, use_listings_cache=False, skip_instance_cache=True)

    def close(self) -> None:
        """End the process."""
        self._door.close()
        self._process.kill()
        self._process.wait()


@functools.cache
def _server() -> Server:
    """The server of all tests of this process, because starting one takes seconds."""
    server = Server()
    atexit.register(server.close)
    return server


@contextlib.contextmanager
def s3(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Server]:
    """A server with an empty bucket called ``bucket``, which the package finds by the environment, and a new cache."""
    from worldmodels.core.storage import place

    for name, value in VARIABLES.items():
        patch.setenv(name, value)
    server = _server()
    patch.setenv("WORLDMODELS_STORAGE_OPTIONS", f'{{"endpoint_url": "{server.url}"}}')
    patch.setenv("WORLDMODELS_CACHE", str(cache))
    place._filesystem.cache_clear()
    server.files.mkdir("bucket")
    try:
        yield server
    finally:
        server.files.rm("bucket", recursive=True)


def wait_for(condition: Callable[[], Any], seconds: float = 900.0) -> None:
    """Return when a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def environment() -> dict[str, str]:
    """The environment for processes that a test starts."""
    return os.environ | {"OMP_NUM_THREADS": "1"}
