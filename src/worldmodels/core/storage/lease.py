"""The right of one process to write to a folder in a bucket: a small file that is created once and renewed.

A bucket has no file locks. The file is created under the condition that it does not exist, so that only one of several
processes succeeds, and holds who has it. It is removed at the end; that of a process that was killed is taken over at
once on the same machine, and elsewhere when it has not been renewed for two minutes.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.storage.place import Missing, Place

LEASE = ".lease.json"
_RENEW_SECONDS = 20.0
_STALE_SECONDS = 120.0
_SETTLE_SECONDS = 1.0
_LARGEST = 4096
_own: set[str] = set()
"""Leases that this process holds. It may have left others, when a bucket was away."""


class Lease:
    """Held while the block of :meth:`taken` runs; :meth:`check` raises :class:`UserError` if another process has it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), "start": _started(os.getpid())}
        self._id = secrets.token_hex(8)
        self._lost = ""
        self._renewed = time.time()
        self._stop = threading.Event()

    @classmethod
    @contextlib.contextmanager
    def taken(cls, place: Place) -> Iterator["Lease"]:
        """Take the lease; :class:`UserError` if another process has it."""
        lease = cls(place)
        lease._take()
        _own.add(lease._id)
        thread = threading.Thread(target=lease._renew_often, daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            lease._stop.set()
            thread.join()
            _own.discard(lease._id)
            # A lease that cannot be removed, because the bucket is away, is recognised as that of an ended process.
            with contextlib.suppress(UserError):
                if holder(place).get("id") == lease._id:
                    place.remove(LEASE)

    def check(self) -> None:
        """Raise :class:`UserError` if the lease was lost, perhaps because this machine was asleep."""
        if time.time() - self._renewed > _STALE_SECONDS:  # and nobody has looked since
            self._renew()
        if self._lost:
            raise UserError(self._lost)

    def _content(self) -> bytes:
        return json.dumps({**self._about, "id": self._id, "renewed": time.time()}).encode()

    def _take(self) -> None:
        if self._place.create(LEASE, self._content()):
            return
        other = holder(self._place)
        if is_held(other):
            ago = max(0.0, time.time() - float(other["renewed"]))
            raise UserError(
                f"{self._place.url} is in use by process {other['pid']} on {other['host']}, which said so {ago:.0f} "
                "seconds ago; wait for it or stop it (two minutes after it was killed, this command takes over)"
            )
        say(f"{self._place.url}: taking over from process {other.get('pid', 'unknown')}, which has ended")
        self._place.write(LEASE, self._content())
        time.sleep(_SETTLE_SECONDS)  # another process may have done the same: the last one has it
        if holder(self._place).get("id") != self._id:
            raise UserError(f"{self._place.url} is in use by another process, which took it at the same moment")

    def _renew_often(self) -> None:
        while not self._lost and not self._stop.wait(_RENEW_SECONDS):
            # A bucket that is away for a while is reported by whoever writes there.
            with contextlib.suppress(UserError):
                self._renew()

    def _renew(self) -> None:
        """Say again that this process has the lease, unless another one has taken it."""
        other = holder(self._place)
        if other.get("id") not in (None, self._id):
            self._lost = f"{self._place.url} was taken over by process {other.get('pid')} on {other.get('host')}"
        else:
            self._place.write(LEASE, self._content())
            self._renewed = time.time()


def holder(place: Place) -> dict[str, Any]:
    """What the lease of a folder says: host, pid, start, id and renewed (seconds since 1970); empty without one."""
    try:
        content = json.loads(place.read(LEASE, _LARGEST))
        if isinstance(content["renewed"], float) and isinstance(content["pid"], int):
            return {name: content.get(name) for name in ("host", "pid", "start", "id", "renewed")}
    except (Missing, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}


def is_held(about: dict[str, Any]) -> bool:
    """Whether the process that :func:`holder` names still works, as far as can be known."""
    if not about or time.time() - about["renewed"] > _STALE_SECONDS:
        return False
    if about["host"] != socket.gethostname():
        return True
    if about["pid"] == os.getpid():
        return about["id"] in _own
    return bool(about["start"] == _started(about["pid"]))


def _started(pid: int) -> str:
    """When a process of this machine was started, in ticks; empty if there is none. A number may be used again."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""
