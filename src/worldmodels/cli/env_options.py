"""Options of ``gymnasium.make`` on the command line: --env.KEY VALUE."""

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from worldmodels.core.errors import UsageError

_FLAG = re.compile(r"--env\.([^=]*)(?:=(.*))?", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = 10_000


def without_env(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments without --env.KEY VALUE, and these options by name.

    A value is JSON or a literal of Python ("0.25", "true", "None", "[1, 2]"), else text. Raises :class:`UsageError` for
    an option without a name or a value.
    """
    rest: list[str] = []
    options: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        match = _FLAG.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        key = match[1].replace("-", "_")
        if not _KEY.fullmatch(key):
            raise UsageError(f"expected --env.KEY VALUE with the name of an option of gymnasium.make, got {word}")
        value = match[2] if match[2] is not None else next(words, None)
        if value is None or (match[2] is None and value.startswith("--")):
            raise UsageError(f"expected a value after {word}, such as {word} 1")
        options[key] = value_of_text(value)
    return rest, options


def value_of_text(text: str) -> Any:
    """A JSON value: the text as JSON or as a literal of Python, else the text itself."""
    if len(text) > _LONGEST:
        raise UsageError(f"expected a value of at most {_LONGEST:,} characters, got {len(text):,}")
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
            # There and back, so that it is what a run's file will hold; NaN is no JSON.
            return json.loads(json.dumps(value, allow_nan=False))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
