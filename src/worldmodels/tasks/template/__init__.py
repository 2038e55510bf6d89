"""A small package with a world of one's own, written for people who then make it theirs.

The files beside this one are its texts, in which @name@, @module@, @class@ and @title@ are replaced.
"""

import keyword
import re
from importlib import resources
from pathlib import Path

from worldmodels.core.errors import UserError
from worldmodels.core.files import disk_errors, new_directory
from worldmodels.tasks import is_task

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST = 40
_FILES = {
    "pyproject.txt": "pyproject.toml",
    "package.txt": "@module@/__init__.py",
    "game.txt": "@module@/game.py",
    "task.txt": "@module@/task.py",
    "presets.txt": "@module@/presets.toml",
}
"""The texts, and the files that they become."""


def write_task(name: str, folder: Path) -> list[Path]:
    """Write a package with a task called ``name`` into the new folder ``folder``; returns its files.

    The folder appears only when it is complete. Raises :class:`UserError` for a name that is not made of lower-case
    letters, digits and single hyphens, one that is taken, and for a folder that exists.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise UserError(
            f"expected a name of lower-case letters, digits and single hyphens, such as my-world, at most {_LONGEST} "
            f"characters long and beginning with a letter, got {name!r}"
        )
    if is_task(name):
        raise UserError(f"there is a task called {name!r} already; choose another name")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already, and nothing in it is overwritten; choose another --out")
    if not folder.parent.is_dir():
        raise UserError(f"there is no folder {folder.parent}; create it, or choose another --out")
    words = _words(name)
    with disk_errors(folder), new_directory(folder) as temporary:
        for source, target in _FILES.items():
            text = (resources.files(__package__) / source).read_text()
            path = temporary / _replaced(target, words)
            path.parent.mkdir(exist_ok=True)
            path.write_text(_replaced(text, words))
    return [folder / _replaced(target, words) for target in _FILES.values()]


def _words(name: str) -> dict[str, str]:
    parts = name.split("-")
    kind = "".join(part.capitalize() for part in parts)
    # A module called like the name could hide one of Python's own.
    words = {"name": name, "module": f"{'_'.join(parts)}_world", "class": kind, "title": " ".join(parts).capitalize()}
    assert words["module"].isidentifier() and not keyword.iskeyword(words["class"])
    return words


def _replaced(text: str, words: dict[str, str]) -> str:
    for key, word in words.items():
        text = text.replace(f"@{key}@", word)
    return text
