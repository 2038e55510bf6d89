"""A worker process that computes chunks of work with one thread and environments of its own."""

import contextlib
import functools
import threading
import time

from worldmodels.core.errors import UserError
from worldmodels.execution.chunk_unpacking import Unpacker, portable
from worldmodels.execution.environments import Environments
from worldmodels.execution.process_worker import (
    Activity,
    Layout,
    begin_worker,
    collect_less_garbage,
    count_beat,
    map_arrays,
)
from worldmodels.execution.recover import WorkerDied

LAYOUT: Layout = {"beats": ((1,), "<i8")}
"""The memory that a worker shares with its parent."""
_BEAT_SECONDS = 1.0


def serve(connection_fd: int, memory_fd: int, parent: int) -> None:
    """The main function: compute chunks and send their results, end when the parent does.

    A message is (parts, the digests of parts to keep, the chunk). An answer is ("done", its result), or a kind of
    failure and what to tell: "user error", "died" (the environment failed: try again) or "raised" (with the exception).
    """
    activity, unpacker = Activity(), Unpacker()
    connection = begin_worker(connection_fd, memory_fd, parent, activity)
    activity.beat = functools.partial(count_beat, map_arrays(memory_fd, LAYOUT)["beats"], 0)
    threading.Thread(target=_beat, args=(activity,), daemon=True).start()
    environments = Environments(activity)
    began = False
    with contextlib.suppress(EOFError, OSError):
        while True:
            parts, keep, data = connection.recv()
            try:
                unpacker.receive(parts, keep)
                chunk = unpacker.unpack(data)
                if not began:
                    _one_thread()
                    collect_less_garbage()
                    began = True
                answer = "done", chunk(environments)
            except WorkerDied as error:
                environments.close()
                answer = "died", str(error)
            except UserError as error:
                answer = "user error", str(error)
            except Exception as error:
                answer = "raised", portable(error)
            connection.send(answer)
    environments.close()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _beat(activity: Activity) -> None:
    """Say that this process lives while it computes; while an environment works, only that can tell."""
    while True:
        time.sleep(_BEAT_SECONDS)
        if not activity.in_environment:
            activity.beat()
