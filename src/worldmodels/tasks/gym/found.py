"""Asks a process of its own for the facts of an environment, and keeps the answers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.headless import headless
from worldmodels.tasks.gym.facts import Facts, read_facts
from worldmodels.tasks.gym_names import make_id

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main(int(sys.argv[2]))"
_MODULE = "worldmodels.tasks.gym.survey"
_LONGEST_SECONDS = 1800.0
_LARGEST_ANSWER = 1 << 22
_known: dict[str, Facts] = {}


def facts_of(name: str, options: Mapping[str, Any]) -> Facts:
    """The facts of the environment of the task called ``name`` with these options of ``gymnasium.make``.

    The same in every process. It takes some seconds; within one process, only once. Raises :class:`UserError`, with
    what the environment said, for an environment that cannot be a task.
    """
    env_id = make_id(name)
    request = json.dumps({"env_id": env_id, "options": dict(options)}, sort_keys=True)
    if request not in _known:
        answer = _ask(request)
        if "facts" not in answer:
            problem = str(answer.get("problem", "the process that looked at it gave no answer"))
            raise UserError(problem if problem.startswith("unknown ") else f"cannot use {name}: {problem}")
        _known[request] = read_facts(answer["facts"], name)
    return _known[request]


def _ask(request: str) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as said:
        arguments = [json.dumps(sys.path), str(file.fileno())]
        try:
            done = subprocess.run(
                [sys.executable, "-c", _START.format(module=_MODULE), *arguments],
                input=request.encode(),
                stdout=said,
                stderr=said,
                env=headless(),
                pass_fds=(file.fileno(),),
                timeout=_LONGEST_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"random play took longer than {_LONGEST_SECONDS / 60:.0f} minutes"}
        interrupt.check()
        file.seek(0)
        text = file.read(_LARGEST_ANSWER)
        if text:
            answer: dict[str, Any] = json.loads(text)
            return answer
        said.seek(0, os.SEEK_END)
        said.seek(max(0, said.tell() - 4096))
        lines = said.read().decode(errors="replace").split("\n")
    last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
    code = done.returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return {"problem": f"the process that tried it {how}{f': {last[:200]}' if last else ''}"}
