"""The order of the rooms, drawn from the source: what imports what. Imports inside functions count like the others."""

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from cases import ROOT

PACKAGE = ROOT / "src" / "worldmodels"
FLOORS = [
    {"core"},
    {"vision", "memory", "controller", "tasks"},
    {"execution", "agent_files"},
    {"rollouts"},
    {"agent"},
    {"__init__"},
    {"evaluation"},
    {"data", "dream"},
    {"evolution"},
    {"analysis", "render"},
    {"run"},
    {"bench", "play"},
    {"cli"},
    {"__main__"},
]
"""Rooms from the lowest to the highest. Imports point down only; rooms of one floor do not know of each other."""
MOST_ENTRIES = 20
"""Entries of the package's folder: what a newcomer takes in at once."""


@cache
def files() -> dict[str, Path]:
    """Every file of the package by its name without the package's: "dream.fast.streams", "dream.__init__"."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def file_of(module: str, name: str = "") -> str | None:
    """The file that an import of ``name`` from a module reads, if it is one of the package."""
    package, _, inside = module.partition(".")
    if package != PACKAGE.name:
        return None
    for one in (f"{inside}.{name}".strip("."), f"{inside}.{name}.__init__".strip("."), inside):
        if one in files():
            return one
    return f"{inside}.__init__".strip(".")


def is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports_below(node: ast.AST) -> Iterable[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and is_for_types_alone(child):
            for other in child.orelse:
                yield from imports_below(other)
        else:
            yield from imports_below(child)


@cache
def imports() -> dict[str, set[str]]:
    """Which files each file imports."""
    found: dict[str, set[str]] = {}
    for name, path in files().items():
        found[name] = set()
        for node in imports_below(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                read = [file_of(alias.name) for alias in node.names]
            else:
                assert node.level == 0, f"{path}: imports are written in full here"
                read = [file_of(node.module or "", alias.name) for alias in node.names]
            found[name] |= {one for one in read if one is not None and one != name}
    return found


def room_of(file: str) -> str:
    return file.split(".")[0]


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Some circle of a graph, or an empty list."""
    done: set[str] = set()

    def walk(node: str, above: list[str]) -> list[str]:
        if node in above:
            return [*above[above.index(node) :], node]
        if node not in done:
            for other in sorted(graph.get(node, ())):
                if found := walk(other, [*above, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def test_the_graph_is_that_of_the_source() -> None:
    assert "core.errors" in imports()["agent"] and "vision.base" in imports()["agent"]
    assert "cli.main" in imports()["__main__"]
    assert "render.video" in imports()["cli.watch"], "an import inside a function"
    assert all(read in files() for found in imports().values() for read in found)


def test_every_room_has_its_floor() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py")} | {room_of(name) for name in files()}
    rooms = [room for floor in FLOORS for room in floor]
    assert sorted(rooms) == sorted(there - {"agents"})  # weights, and no code


def test_imports_point_down() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    up = [
        f"{file} -> {read}"
        for file, found in imports().items()
        for read in sorted(found)
        if room_of(file) != room_of(read) and floor.get(room_of(file), -1) <= floor[room_of(read)]
    ]
    assert not up, "\n".join(up)


def test_no_files_import_each_other_in_a_circle() -> None:
    found = circle(imports())
    assert not found, " -> ".join(found)


def test_no_folders_import_each_other_in_a_circle() -> None:
    def folder_of(file: str) -> str:
        return file.rpartition(".")[0]

    graph: dict[str, set[str]] = {}
    for file, found in imports().items():
        if folder := folder_of(file):
            graph.setdefault(folder, set()).update({folder_of(read) for read in found} - {"", folder})
    found = circle(graph)
    assert not found, " -> ".join(found)


@pytest.mark.parametrize("graph", [{"a": ["b"], "b": ["c"], "c": ["a"]}, {"x": ["a"], "a": ["a"]}])
def test_a_circle_would_be_found(graph: dict[str, list[str]]) -> None:
    assert circle(graph)[0] == circle(graph)[-1] == "a"
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_a_newcomer_takes_in_the_package_at_one_look() -> None:
    there = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert len(there) <= MOST_ENTRIES, sorted(there)
