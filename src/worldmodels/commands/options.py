"""What the options of all verbs have in common: reading them, and agents by their names."""

import contextlib
import io
import re
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

from worldmodels.errors import UsageError, UserError

if TYPE_CHECKING:
    from worldmodels.agent import Agent

Options = TypeVar("Options")
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]


def parse(kind: type[Options], verb: str, arguments: list[str], default: Options | None = None) -> Options:
    """Options of ``kind`` out of the arguments of a verb; what cannot be understood is a :class:`UsageError`."""
    # Without a default of ours the class itself says what the defaults are.
    given = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"worldmodels {verb}", args=arguments, **given)  # type: ignore[call-overload, no-any-return]
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    raise UsageError(f"{_sentence(complaint.getvalue())}; see worldmodels {verb} --help")


def _sentence(box: str) -> str:
    """What tyro draws into a box when it cannot parse the arguments, in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    blocks = [[""]]  # of lines, parted by tyro's rules
    for line in (line.strip("│╭╮╰╯ ") for line in plain.splitlines()[1:]):
        if set(line) <= {"─"}:
            blocks.append([])
        else:
            blocks[-1].append(line)
    text = " ".join(blocks[0]).strip(" .") or "the options cannot be understood"
    text = re.sub(r"invalid literal for int\(\) with base 10: ('.*')", r"expected a whole number, got \1", text)
    text = re.sub(r"could not convert string to float: ('.*')", r"expected a number, got \1", text)
    hints = re.search(r"Perhaps you meant:\W*(--[\w.-]+)", plain)
    return f"{text}; did you mean {hints[1]}?" if hints else text


def value_of(flag: str, arguments: list[str]) -> str | None:
    """What is given for a flag, or None."""
    for index, text in enumerate(arguments):
        if text == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if text.startswith(f"{flag}="):
            return text.split("=", 1)[1]
    return None


def agent_for(task: str, name: str | None, device: str = "cpu") -> "Agent":
    """The agent called ``name`` (None: the shipped one), which must be one for ``task``."""
    from worldmodels.agent import load_agent
    from worldmodels.tasks import get_task

    get_task(task)
    agent = load_agent(name or task, device)
    if agent.task.name != task:
        raise UserError(f"{name} is an agent for {agent.task.name}, not for {task}; give that task")
    return agent
