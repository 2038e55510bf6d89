"""The verb that writes a package with a world of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.cli.options import parse
from worldmodels.core.settings import text


@dataclass(frozen=True)
class NewTaskOptions:
    """Write a small package with a world of your own: a game, its task, presets and a pyproject.toml."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = text("my-world")
    """The name of the world in commands, such as my-world."""
    out: Path | None = text(None)
    """The folder to write, which must not exist (default: one of that name)."""


def new_task(verb: str, arguments: Sequence[str], description: str) -> int:
    """Write the package, and say what to do with it."""
    options = parse(NewTaskOptions, verb, arguments, description=description)
    from worldmodels.tasks.template import write_task

    folder = options.out or Path(options.name)
    files = write_task(options.name, folder)
    for path in files:
        print(path)
    print(f"Next: pip install -e {folder}, and then: worldmodels train {options.name} --preset quick")
    return 0
