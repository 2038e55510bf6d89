"""Settings: frozen dataclasses whose fields declare which values they accept.

The annotation of a field gives its type, its rule the bounds, and the docstring below it the meaning. :func:`check`,
:func:`from_json` and the command line, with its options and help, all use these declarations.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from worldmodels.core.errors import UserError

T = TypeVar("T")
_RULE = "rule"
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]*"
"""Pattern for the names in a table of settings, such as the names of phases."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which values a field accepts: numbers within bounds, strings out of some choices, or sequences of either.

    low, high: inclusive bounds; above: an exclusive lower bound; choices: all valid values; nonempty: a sequence must
    have at least one element. The other rules of a sequence apply to each of its elements.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    nonempty: bool = False

    def text(self) -> str:
        """The rule in words: "at least 0", "positive", "one of a, b"; empty if every value of the type is valid."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bounds = []
        if self.above is not None:
            bounds.append("positive" if self.above == 0 else f"above {self.above:g}")
        if self.low is not None:
            bounds.append(f"at least {self.low:g}")
        if self.high is not None:
            bounds.append(f"at most {self.high:g}")
        return " and ".join(bounds)

    def admits(self, value: Any) -> bool:
        """Whether a single value of the right type satisfies the rule; NaN and infinity never do."""
        if self.choices:
            return value in self.choices
        if isinstance(value, str | Path):
            return True
        if isinstance(value, float) and not math.isfinite(value):
            return False
        too_low = (self.low is not None and value < self.low) or (self.above is not None and value <= self.above)
        return not too_low and (self.high is None or value <= self.high)


def number(
    default: float | tuple[float, ...] | None,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    nonempty: bool = False,
) -> Any:
    """A field for a number or a tuple of numbers; ``low`` and ``high`` are inclusive bounds, ``above`` is exclusive."""
    return dataclasses.field(default=default, metadata={_RULE: Rule(low, above, high, nonempty=nonempty)})


def choice(default: str | tuple[str, ...], *choices: str, nonempty: bool = False) -> Any:
    """A field for one of ``choices``, or for a tuple of them."""
    return dataclasses.field(default=default, metadata={_RULE: Rule(choices=choices, nonempty=nonempty)})


def text(default: str | bool | tuple[str, ...] | Path | None) -> Any:
    """A field for a string, a path, a boolean or a tuple of strings, of which only the type is checked."""
    return dataclasses.field(default=default, metadata={_RULE: Rule()})


def part(kind: Callable[[], Any]) -> Any:
    """A field that holds further settings; ``kind()`` gives its default."""
    return dataclasses.field(default_factory=kind, metadata={_RULE: Rule()})


def table() -> Any:
    """A field for a table of JSON values by name, of which only the type is checked; it is no option by itself."""
    return dataclasses.field(default_factory=dict, metadata={_RULE: Rule()})


def rule_of(item: "dataclasses.Field[Any]") -> Rule | None:
    """The rule of a field, or None if it was declared without one."""
    return item.metadata.get(_RULE)


def option_name(path: str) -> str:
    """The command-line option of a field: "--vision.latent-size" for "vision.latent_size"."""
    return f"--{path}".replace("_", "-")


def check(settings: Any, where: str = "") -> None:
    """Raise a :class:`UserError` that names the option, for a value of the wrong type or out of bounds.

    where: prefix of the options' names, such as "vision.". A field without a rule is a TypeError.
    """
    hints = get_type_hints(type(settings))
    for item in dataclasses.fields(settings):
        rule = rule_of(item)
        if rule is None:
            raise TypeError(
                f"{type(settings).__name__}.{item.name} has no rule; declare it with worldmodels.core.settings"
            )
        _check_value(getattr(settings, item.name), hints[item.name], rule, f"{where}{item.name}")


def _check_value(value: Any, kind: Any, rule: Rule, path: str) -> None:
    name = option_name(path)
    if get_origin(kind) in (Union, UnionType):  # X | None
        if value is None:
            return
        kind = next(member for member in get_args(kind) if member is not NoneType)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            raise UserError(f"{name} must be a table of settings, got {value!r}")
        check(value, f"{path}.")
    elif get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{name} must be a table, got {value!r}")
        if get_args(kind)[1] is Any:
            return
        for key, entry in value.items():
            if not re.fullmatch(_NAME, str(key)):  # the name becomes part of an option and of a folder's name
                raise UserError(f"names in {name} must consist of letters, digits and -, got {key!r}")
            _check_value(entry, get_args(kind)[1], rule, f"{path}.{key}")
    elif get_origin(kind) is tuple:
        _check_sequence(value, get_args(kind)[0], rule, name)
    elif not _fits(value, kind):
        raise UserError(f"{name} must be {_KINDS[kind][1]}, got {value!r}")
    elif not rule.admits(value):
        raise UserError(f"{name} must be {rule.text() or 'a finite number'}, got {value!r}")


def _check_sequence(value: Any, kind: Any, rule: Rule, name: str) -> None:
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else repr(value)
    each = f" that are {rule.text()}" if rule.text() and not rule.choices else ""
    wanted = f"some of {', '.join(rule.choices)}" if rule.choices else f"{_PLURALS[kind]}{each}"
    fits = isinstance(value, tuple) and all(_fits(item, kind) and rule.admits(item) for item in value)
    if not fits or (rule.nonempty and not value):
        raise UserError(f"{name} must be {wanted}, got {shown or 'nothing'}")
    if rule.choices and len(set(value)) < len(value):
        raise UserError(f"{name} must name each of {', '.join(rule.choices)} once at most, got {shown}")


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text"),
    Path: ((Path,), "a path"),
}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


def _fits(value: Any, kind: Any) -> bool:
    return isinstance(value, _KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))


def to_json(settings: Any) -> dict[str, Any]:
    """Settings as JSON-serialisable values; tuples become lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(settings).items()}


def without_idle(settings: Any, optional: Collection[str]) -> dict[str, Any]:
    """:func:`to_json` without the settings named in ``optional`` that are off (0 or None).

    For the identity of work: with a setting that was added later, but is off, it is the work of earlier versions.
    """
    return {name: value for name, value in to_json(settings).items() if value or name not in optional}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return {key: _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def from_json(kind: type[T], content: Any, default: "T | None" = None, where: str = "") -> T:
    """Settings of class ``kind`` from the output of :func:`to_json`.

    Settings that are missing are those of ``default``, or without it the defaults of the class. Raises
    :class:`UserError` for a name that does not exist, and for a value of the wrong type or out of bounds.
    """
    built = _built(kind, content, default, where)
    check(built, where)
    return built


def _built(kind: type[T], content: Any, default: "T | None", where: str) -> T:
    if not isinstance(content, Mapping):
        raise UserError(f"{option_name(where.rstrip('.')) if where else 'settings'} must be a table, got {content!r}")
    hints = get_type_hints(kind)
    for name in content:
        if name not in hints:
            close = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UserError(f"there is no setting {where}{name}{hint}")
    values: dict[str, Any] = {}
    for name, value in content.items():
        before = getattr(default, name) if default is not None else None
        values[name] = _value(hints[name], value, before, f"{where}{name}")
    if default is not None:
        return dataclasses.replace(default, **values)  # type: ignore[type-var]
    return kind(**values)


def _value(kind: Any, value: Any, before: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _built(kind, value, before, f"{path}.")  # type: ignore[arg-type]
    if get_origin(kind) is dict and get_args(kind)[1] is Any:
        return value
    if get_origin(kind) is dict and isinstance(value, Mapping):
        inner, earlier = get_args(kind)[1], dict(before or {})
        entries = {key: _value(inner, entry, earlier.get(key), f"{path}.{key}") for key, entry in value.items()}
        return earlier | entries
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], item, None, path) for item in value)
    if kind is float and type(value) is int:
        return _fraction(value)
    return value


def _fraction(value: int) -> float:
    """The integer as a float, so that equal settings are also written equally; one that is too large is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
