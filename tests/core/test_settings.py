"""Settings that say themselves which values they take."""

import ast
import dataclasses
import inspect
import itertools
import math
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from worldmodels.analysis.config import DreamReportConfig
from worldmodels.cli import exchange, measure, runs, storage, watch
from worldmodels.core.errors import UserError
from worldmodels.core.settings import check, choice, from_json, number, option_name, part, rule_of, text, to_json
from worldmodels.core.storage.blobs import CacheSettings
from worldmodels.run.config import Config


def parts_of(kind: type[Any]) -> set[type[Any]]:
    """A class of settings and those of all its parts."""
    found = {kind}
    for hint in get_type_hints(kind).values():
        inner = get_args(hint)[1] if get_origin(hint) is dict else hint
        if dataclasses.is_dataclass(inner):
            found |= parts_of(inner)  # type: ignore[arg-type]
    return found


def declared_in(module: Any) -> list[type[Any]]:
    kinds = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__]
    return [one for one in kinds if dataclasses.is_dataclass(one)]


OPTIONS = [kind for module in (runs, measure, watch, exchange, storage) for kind in declared_in(module)]
KINDS = sorted(
    set().union(*map(parts_of, [Config, DreamReportConfig, CacheSettings, *OPTIONS])), key=lambda one: one.__name__
)


def documented(kind: type[Any]) -> dict[str, str]:
    """The docstrings below the fields that a class itself declares."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        ast.unparse(one.target): below.value.value
        for one, below in itertools.pairwise(tree.body)
        if isinstance(one, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def test_all_settings_and_options_are_looked_at_here() -> None:
    names = {kind.__name__ for kind in KINDS}
    assert {"Config", "CollectConfig", "PhaseConfig", "EvaluateConfig", "DreamReportConfig", "RunOptions"} <= names
    assert {"EvaluateOptions", "RecordOptions", "PlayOptions", "DreamOptions", "BenchOptions", "DemoOptions"} <= names


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_every_field_says_its_bounds_and_its_meaning(kind: type[Any]) -> None:
    assert kind.__dataclass_params__.frozen and kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")
    meanings = {
        name: said for one in kind.__mro__ if dataclasses.is_dataclass(one) for name, said in documented(one).items()
    }
    hints = get_type_hints(kind)
    for item in dataclasses.fields(kind):
        assert rule_of(item) is not None, f"{kind.__name__}.{item.name} has no rule"
        if not dataclasses.is_dataclass(hints[item.name]):  # which says its meaning itself
            said = meanings.get(item.name, "")
            assert said[:1].isupper() or said[:1].islower(), f"{kind.__name__}.{item.name} has no docstring"
            assert said.rstrip().endswith("."), f"{kind.__name__}.{item.name}: expected a sentence, got {said!r}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda one: one.__name__)
def test_the_values_that_settings_have_by_themselves_are_within_their_bounds(kind: type[Any]) -> None:
    check(kind())


def test_a_class_with_a_field_without_a_rule_does_not_pass() -> None:
    @dataclass(frozen=True)
    class Careless:
        wheels: int = number(4, low=1)
        colour: str = "red"

    @dataclass(frozen=True)
    class Outer:
        car: Careless = part(Careless)

    for settings in (Careless(), Outer()):
        with pytest.raises(TypeError, match=r"Careless\.colour has no rule"):
            check(settings)


@dataclass(frozen=True)
class Wheel:
    """A part of which there are several."""

    size: float = number(1.0, above=0)


def _wheels() -> dict[str, Wheel]:
    return {"left": Wheel()}


@dataclass(frozen=True)
class Car:
    """Every kind of field."""

    doors: int = number(4, low=1, high=5)
    weight: float = number(1.0, above=0.5)
    gears: tuple[int, ...] = number((1, 2), low=1, nonempty=True)
    fuel: str = choice("petrol", "petrol", "wood")
    extras: tuple[str, ...] = choice((), "roof", "radio")
    owner: str | None = text(None)
    place: Path = text(Path("garage"))
    new: bool = text(True)
    seats: int | None = number(None, low=1)
    wheels: dict[str, Wheel] = part(_wheels)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"doors": 0}, "--doors must be at least 1 and at most 5, got 0"),
    ({"doors": 6}, "--doors must be at least 1 and at most 5, got 6"),
    ({"doors": 2.0}, "--doors must be a whole number, got 2.0"),
    ({"doors": True}, "--doors must be a whole number, got True"),
    ({"doors": None}, "--doors must be a whole number, got None"),
    ({"weight": 0.5}, "--weight must be above 0.5, got 0.5"),
    ({"weight": math.inf}, "--weight must be above 0.5, got inf"),
    ({"weight": math.nan}, "--weight must be above 0.5, got nan"),
    ({"weight": "heavy"}, "--weight must be a number, got 'heavy'"),
    ({"gears": ()}, "--gears must be whole numbers that are at least 1, got nothing"),
    ({"gears": (1, 0)}, "--gears must be whole numbers that are at least 1, got 1 0"),
    ({"gears": (1, 1.5)}, "--gears must be whole numbers that are at least 1, got 1 1.5"),
    ({"gears": 3}, "--gears must be whole numbers that are at least 1, got 3"),
    ({"fuel": "water"}, "--fuel must be one of petrol, wood, got 'water'"),
    ({"extras": ("roof", "boat")}, "--extras must be some of roof, radio, got roof boat"),
    ({"extras": ("roof", "roof")}, "--extras must name each of roof, radio once at most, got roof roof"),
    ({"owner": 3}, "--owner must be text, got 3"),
    ({"place": "garage"}, "--place must be a path, got 'garage'"),
    ({"new": 1}, "--new must be true or false, got 1"),
    ({"seats": 0}, "--seats must be at least 1, got 0"),
    ({"wheels": []}, "--wheels must be a table, got []"),
    ({"wheels": {"left": 3}}, "--wheels.left must be a table of settings, got 3"),
    ({"wheels": {"left": Wheel(0)}}, "--wheels.left.size must be positive, got 0"),
    ({"wheels": {"": Wheel()}}, "names in --wheels must consist of letters, digits and -, got ''"),
    ({"wheels": {"../left": Wheel()}}, "names in --wheels must consist of letters, digits and -, got '../left'"),
    ({"wheels": {"left_1": Wheel()}}, "names in --wheels must consist of letters, digits and -, got 'left_1'"),
    ({"wheels": {"a\n": Wheel()}}, "names in --wheels must consist of letters, digits and -, got 'a\\n'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=str)
def test_a_value_that_does_not_fit_is_refused_by_the_name_of_its_option(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        check(Car(**values))
    assert str(refusal.value) == message


def test_a_whole_number_will_do_as_a_fraction_and_nothing_where_nothing_is_allowed() -> None:
    check(
        Car(weight=2, seats=None, owner=None, extras=("radio", "roof"), wheels={"left": Wheel(2), "right-2": Wheel()})
    )


def test_settings_come_back_from_json_and_some_of_them_change_the_rest_stays() -> None:
    car = Car(doors=2, gears=(1, 5), wheels={"left": Wheel(2.0), "right": Wheel(3.0)}, place=Path("garage"))
    content = {name: value for name, value in to_json(car).items() if name != "place"}
    assert content["gears"] == [1, 5] and content["wheels"] == {"left": {"size": 2.0}, "right": {"size": 3.0}}
    assert from_json(Car, content) == car
    changed = from_json(Car, {"doors": 3, "wheels": {"right": {"size": 4.0}}}, default=car)
    assert changed == dataclasses.replace(car, doors=3, wheels={"left": Wheel(2.0), "right": Wheel(4.0)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"door": 3}, "there is no setting door; did you mean 'doors'?"),
        ({"wheels": {"left": {"colour": 1}}}, "there is no setting wheels.left.colour"),
        ({"wheels": 3}, "--wheels must be a table, got 3"),
        ({"wheels": {"left": 3}}, "--wheels.left must be a table, got 3"),
        ({"gears": "12"}, "--gears must be whole numbers"),
        ({"gears": [[1], {}]}, "--gears must be whole numbers"),
        ({"extras": [["roof"]]}, "--extras must be some of roof, radio"),
        ({"fuel": ["wood"]}, "--fuel must be text, got ['wood']"),
        (3, "settings must be a table, got 3"),
        (None, "settings must be a table, got None"),
    ],
)
def test_content_that_is_not_of_these_settings_is_refused(content: Any, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        from_json(Car, content)
    assert message in str(refusal.value)


def test_an_option_is_typed_with_hyphens() -> None:
    assert option_name("evolution.phases.real.max_steps") == "--evolution.phases.real.max-steps"


def test_fields_that_have_no_rule_have_none() -> None:
    @dataclass
    class Plain:
        one: int = field(default=1)

    assert rule_of(dataclasses.fields(Plain)[0]) is None


def test_a_fraction_that_was_written_as_a_whole_number_is_a_fraction() -> None:
    """Settings that are equal look the same wherever they are compared as text."""

    @dataclass(frozen=True)
    class Tyres:
        pressures: tuple[float, ...] = number((2, 3), above=0)
        width: float = number(3, above=0)
        count: int = number(4)

    read = from_json(Tyres, to_json(Tyres()))
    assert read == Tyres() and repr(read).endswith("(pressures=(2.0, 3.0), width=3.0, count=4)")
    with pytest.raises(UserError, match="--width must be positive, got inf"):
        from_json(Tyres, {"width": 10**400})
