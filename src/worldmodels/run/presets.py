"""The presets of a task: named settings, in a file ``presets.toml`` beside the task's module.

A preset is a table with the settings of :class:`~worldmodels.run.config.Config`. Settings that it omits are those of
the preset that it ``extends``, or else the defaults of the class. Likewise, a phase may be ``like`` another phase.
"""

import copy
import difflib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.settings import from_json, to_json
from worldmodels.run.config import Config
from worldmodels.tasks import TASKS, Task, get_task
from worldmodels.tasks.gym_names import is_gym

_FILE = "presets.toml"


def preset_names(task: str) -> list[str]:
    """The names of a task's presets, in the order of its file."""
    return list(_tables(task))


def preset(
    name: str,
    task: str = "car-racing",
    env: Mapping[str, Any] | None = None,
    world: Mapping[str, Any] | None = None,
) -> Config:
    """The preset called ``name`` of a task; an unknown or invalid preset is a :class:`UserError`.

    env: options of the environment; world: what is known about that of a task gym:ID, if it has been found out before.
    """
    if is_gym(task):
        made = get_task(task, env, world)
        tables, about = dict(made.presets or {}), {"env": dict(made.options), "world": dict(made.facts)}
        task = made.name
    else:
        tables, about = _tables(task), {}
    content = _completed(tables, name, "preset", "extends") | about
    if not is_gym(task):
        content["env"] = {**content.get("env", {}), **(env or {})}
    evolution = content.get("evolution")
    if isinstance(evolution, dict) and isinstance(phases := evolution.get("phases"), dict):
        evolution["phases"] = {phase: _completed(phases, phase, "phase", "like") for phase in phases}
    return from_json(Config, content | {"task": task, "preset": name})


def task_of(config: Config) -> Task:
    """The task of a run with these settings; of a task gym:ID, as its environment was found when the run was made."""
    return get_task(config.task, config.env, config.world)


def resolved(config: Config, task: Task) -> Config:
    """The settings with the task's defaults filled in: backends, M's clock, C's inputs, and the start steps of dreams.

    Of a task gym:ID, what was found out about its environment is filled in, too. They are converted to JSON and back,
    as in a run's file, so that every process sees the same settings. Raises :class:`UserError` for invalid settings.
    """
    fastest = task.backends[0]
    config = replace(
        config,
        env=dict(task.options),
        world=dict(task.facts),
        collect=replace(config.collect, backend=config.collect.backend or fastest),
        evolution=replace(config.evolution, backend=config.evolution.backend or fastest),
        memory=replace(config.memory, clock=task.clock_steps if config.memory.clock is None else config.memory.clock),
        controller=replace(config.controller, inputs=config.controller.inputs or task.inputs),
        dream=replace(config.dream, start_steps=config.dream.start_steps or task.start_steps),
    )
    return from_json(Config, to_json(config))


def _tables(task: str) -> dict[str, Any]:
    if is_gym(task):
        return dict(get_task(task).presets or {})
    path = _path(task)
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None


def _path(task: str) -> Path:
    """The file beside the task's module, or else beside the module of a class from which the task inherits."""
    target = TASKS.target(task)
    if isinstance(target, str):
        # Found without importing the task, because that would make every --help slow.
        spec = find_spec(target.split(":")[0])
        if spec is not None and spec.origin is not None and (path := Path(spec.origin).with_name(_FILE)).is_file():
            return path
    for kind in TASKS.get(task).__mro__:
        file = getattr(sys.modules[kind.__module__], "__file__", None)  # None for an interactive session
        if file is not None and (path := Path(file).with_name(_FILE)).is_file():
            return path
    raise UserError(f"the task {task} has no {_FILE}")


def _completed(
    tables: Mapping[str, Any], name: str, what: str, word: str, above: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The table called ``name``, merged over the table that its key ``word`` names.

    what: the kind of table, for messages; above: names that lead to this table, to detect cycles.
    """
    if name not in tables:
        close = difflib.get_close_matches(name, tables, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one of them"
        raise UserError(f"unknown {what} {name!r}; {what}s are {', '.join(tables)}; {hint}")
    if name in above or not isinstance(tables[name], dict):
        problem = f"refers back to itself through {word!r}" if name in above else "is not a table"
        raise UserError(f"the {what} {name!r} {problem}")
    table = dict(tables[name])
    base_name = table.pop(word, None)
    base = {} if base_name is None else _completed(tables, str(base_name), what, word, (*above, name))
    return _merged(base, table)


def _merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in more.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both_tables else copy.deepcopy(value)
    return merged
