"""Settings: frozen dataclasses whose fields say themselves which values they take.

One source serves all: the annotation says the type, the field's rule the bounds, the docstring below it the meaning.
:func:`check` refuses by them, :func:`from_json` reads by them, and the command line makes options and help of them.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from worldmodels.core.errors import UserError

T = TypeVar("T")
_RULE = "rule"
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]*"
"""What settings are called that have no class of their own, such as phases."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which values a field takes: numbers within bounds, texts out of some choices, or sequences of either.

    low, high: least and greatest value; above: every value is greater; choices: every possible value; nonempty: a
    sequence has at least one element. Bounds of a sequence hold for each of its elements.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    nonempty: bool = False

    def text(self) -> str:
        """The rule for people: "at least 0", "positive", "one of a, b"; empty where everything of the type will do."""
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
        """Whether a single value, of the right type, is within the bounds; NaN and infinity never are."""
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
    """A field for a number, or for a tuple of numbers, within bounds."""
    return dataclasses.field(default=default, metadata={_RULE: Rule(low, above, high, nonempty=nonempty)})


def choice(default: str | tuple[str, ...], *choices: str, nonempty: bool = False) -> Any:
    """A field for one of some texts, or for a tuple of them."""
    return dataclasses.field(default=default, metadata={_RULE: Rule(choices=choices, nonempty=nonempty)})


def text(default: str | tuple[str, ...] | Path | None) -> Any:
    """A field for a free text, a path or a truth value, or for a tuple of texts, which something else checks."""
    return dataclasses.field(default=default, metadata={_RULE: Rule()})


def part(kind: Callable[[], Any]) -> Any:
    """A field for settings of their own."""
    return dataclasses.field(default_factory=kind, metadata={_RULE: Rule()})


def rule_of(item: "dataclasses.Field[Any]") -> Rule | None:
    """The rule of a field, or None for one that was declared without."""
    return item.metadata.get(_RULE)


def option_name(path: str) -> str:
    """The option of a field, as it is typed: "vision.latent_size" is "--vision.latent-size"."""
    return f"--{path}".replace("_", "-")


def check(settings: Any, where: str = "") -> None:
    """Refuse a value of the wrong type or out of its bounds with a :class:`UserError` that names the option."""
    hints = get_type_hints(type(settings))
    for item in dataclasses.fields(settings):
        rule = rule_of(item)
        if rule is None:
            raise TypeError(
                f"{type(settings).__name__}.{item.name} has no rule; declare it by worldmodels.core.settings"
            )
        _check_value(getattr(settings, item.name), hints[item.name], rule, f"{where}{item.name}")


def _check_value(value: Any, kind: Any, rule: Rule, path: str) -> None:
    name = option_name(path)
    if get_origin(kind) in (Union, UnionType):  # X | None
        if value is None:
            return
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, kind):  # type: ignore[arg-type]
            raise UserError(f"{name} must be a table of settings, got {value!r}")
        check(value, f"{path}.")
    elif get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise UserError(f"{name} must be a table, got {value!r}")
        for key, one in value.items():
            if not re.fullmatch(_NAME, str(key)):  # it becomes an option, and the name of a folder
                raise UserError(f"names in {name} must be of letters, digits and -, got {key!r}")
            _check_value(one, get_args(kind)[1], rule, f"{path}.{key}")
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
    fits = isinstance(value, tuple) and all(_fits(one, kind) and rule.admits(one) for one in value)
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
    """Settings as JSON-able values; tuples are lists."""
    return {name: _plain(value) for name, value in dataclasses.asdict(settings).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def from_json(kind: type[T], content: Any, default: "T | None" = None, where: str = "") -> T:
    """Settings of a class from what :func:`to_json` wrote, or from some of it, the rest being as in ``default``.

    A name that does not exist and a value of the wrong type or out of its bounds are a :class:`UserError`.
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
    if get_origin(kind) is dict and isinstance(value, Mapping):
        inner, earlier = get_args(kind)[1], dict(before or {})
        return earlier | {key: _value(inner, one, earlier.get(key), f"{path}.{key}") for key, one in value.items()}
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], one, None, path) for one in value)
    if kind is float and type(value) is int:
        return _fraction(value)
    return value


def _fraction(value: int) -> float:
    """The same number, so that settings that are equal also look the same."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
