"""Options of all verbs: parsing them, their help, and agents by their names."""

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import tyro

from worldmodels.cli.env_options import without_env
from worldmodels.core.errors import UsageError, UserError
from worldmodels.core.settings import check, rule_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

Options = TypeVar("Options")
TaskName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TASK]")]
OptionalTaskName = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TASK]")]
_HELP = ("-h", "--help")
_HELP_ALL = "--help-all"


def parse(
    kind: type[Options],
    verb: str,
    arguments: Sequence[str],
    default: Options | None = None,
    description: str | None = None,
    groups: Sequence[str] | None = None,
) -> Options:
    """Parse the arguments of a verb into options of class ``kind``, and check them.

    default: values of options that are not given (None: the defaults of the class); groups: the groups of settings that
    ``--help`` shows, while ``--help-all`` shows all (None: both show all). Raises :class:`UsageError` for arguments
    that cannot be parsed and :class:`UserError` for invalid values.
    """
    arguments, env = without_env(arguments)
    if env and "env" not in get_type_hints(kind):
        raise UsageError(f"worldmodels {verb} has no --env.{next(iter(env))}; see worldmodels {verb} --help")
    everything = _HELP_ALL in arguments
    arguments = ["--help" if text == _HELP_ALL else text for text in arguments]
    _describe(kind)
    shown: Any = kind
    if groups is not None and not everything and any(text in _HELP for text in arguments):
        shown = _only(kind, groups)
        description = f"{description}\n\nworldmodels {verb} {_HELP_ALL} lists every setting."
    # Without ``default``, tyro uses the defaults of the class.
    given = {} if default is None else {"default": default}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            options: Options = tyro.cli(  # type: ignore[call-overload]
                shown, prog=f"worldmodels {verb}", args=arguments, description=description, **given
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise UsageError(f"{_sentence(printed.getvalue())}; see worldmodels {verb} --help") from None
    if env:
        options = dataclasses.replace(options, env=env)  # type: ignore[type-var]
    check(options)
    return options


def _describe(kind: type[Any]) -> None:
    """Annotate the fields of ``kind`` for tyro, so that the help of an option says its meaning, bounds and default."""
    meanings = {name: text for base in reversed(kind.__mro__) for name, text in _meanings(base).items()}
    hints, annotated = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    for item in dataclasses.fields(kind):
        rule, inner = rule_of(item), hints[item.name]
        if dataclasses.is_dataclass(inner):
            _describe(inner)  # type: ignore[arg-type]
        elif get_origin(inner) is dict and get_args(inner)[1] is Any:
            # No option of its own: without_env reads those of the environment.
            item_owner = next(base for base in kind.__mro__ if item.name in inspect.get_annotations(base))
            item_owner.__annotations__[item.name] = Annotated[inner, tyro.conf.Suppress, tyro.conf.Fixed]
        elif get_origin(inner) is dict:
            _describe(get_args(inner)[1])
        elif not any(isinstance(note, _Described) for note in get_args(annotated[item.name])):
            hint = _Hint(rule.text() if rule is not None else "")
            options: dict[str, Any] = {"help": meanings.get(item.name), "help_behavior_hint": hint}
            if type(None) in get_args(inner) and "metavar" not in repr(annotated[item.name]):
                options["metavar"] = get_args(inner)[0].__name__.upper()
            owner = next(base for base in kind.__mro__ if item.name in inspect.get_annotations(base))
            owner.__annotations__[item.name] = Annotated[annotated[item.name], tyro.conf.arg(**options), _Described()]


def _meanings(kind: type[Any]) -> dict[str, str]:
    """The docstrings below the fields of a class. Tyro reads them too, but keeps the line breaks of the source."""
    if not dataclasses.is_dataclass(kind):
        return {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(str(below.value.value).split())
        for field, below in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


class _Described:
    """Marks a field that :func:`_describe` has annotated."""


@dataclasses.dataclass(frozen=True)
class _Hint:
    """The bounds and the default of an option, which the help shows after its meaning."""

    bounds: str

    def __call__(self, default: str) -> str:
        shown = "" if default in ("None", "''", "") else f"default: {default}"
        text = "; ".join(part for part in (self.bounds, shown) if part)
        return f"({text})" if text else ""


def _only(kind: type[Any], groups: Sequence[str]) -> type[Any]:
    """A subclass of ``kind`` whose help shows only the given groups of settings."""
    hints = get_type_hints(kind, include_extras=True)
    hidden = {
        item.name: Annotated[hints[item.name], tyro.conf.Suppress]
        for item in dataclasses.fields(kind)
        if dataclasses.is_dataclass(hints[item.name]) and item.name not in groups
    }
    return type(kind.__name__, (kind,), {"__annotations__": hidden, "__doc__": kind.__doc__})


def _sentence(box: str) -> str:
    """The error message that tyro draws into a box when it cannot parse the arguments, in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    blocks = [[""]]  # of lines, separated by horizontal rules
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


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value given for a flag, as ``--flag VALUE`` or ``--flag=VALUE``; None if it is not given."""
    for index, text in enumerate(arguments):
        if text == flag and index + 1 < len(arguments):
            return arguments[index + 1]
        if text.startswith(f"{flag}="):
            return text.split("=", 1)[1]
    return None


def check_output(path: Path | None) -> None:
    """Raise :class:`UserError` if a file that is written at the end of the work (None: no file) could not be written.

    Its folder must exist, because a folder with a typing error in its name would be found only after the work.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"could not write {path}: there is no folder {path.parent}; create it, or choose another file")
    if path.is_dir():
        raise UserError(f"could not write {path}: it is a folder; choose another file")


def agent_for(task: str | None, name: str | None, device: str = "cpu", env: Mapping[str, Any] | None = None) -> "Agent":
    """The agent called ``name`` (None: the shipped agent of the task).

    env: options of the environment that were given. An agent for another task, or for other options, is a UserError.
    """
    from worldmodels.agent import load_agent
    from worldmodels.tasks import get_task, same_task
    from worldmodels.tasks.gym_names import is_gym, shown_option

    wanted = dict(env or {})
    if task is not None and not is_gym(task):
        wanted = dict(get_task(task, env).options)
    agent = load_agent(name or task or "car-racing", device)
    if task is not None and not same_task(task, agent.task.name):
        raise UserError(f"{name} is an agent for {agent.task.name}, not for {task}; use the task {agent.task.name}")
    if env and wanted != dict(agent.task.options):
        own = " ".join(f"--env.{key} {shown_option(value)}" for key, value in agent.task.options.items())
        raise UserError(
            f"{name} acts in {agent.task.name} with {own or 'no options of its environment'}, which the agent brings "
            "along; leave --env out"
        )
    return agent
