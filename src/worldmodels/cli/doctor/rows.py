"""The rows of the doctor's report, and checks, which give rows even if they fail."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata

from worldmodels.cli.doctor.trials import one_line

REINSTALL = 'pip install "worldmodels[all]"'
"""The command that repairs most problems."""


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    what: str
    """What was checked."""
    works: bool
    """Whether it works."""
    found: str
    """What was found, or what went wrong, in one line."""
    fix: str = ""
    """What to do if it does not work."""
    needed: bool = False
    """Whether nothing can be trained without it."""
    task: str = ""
    """The task that was checked, if the row is about one."""
    backend: str = ""
    """The backend of the task that was checked."""
    reference: bool = False
    """Whether this is the task's reference backend, without which it cannot be trained and scored."""


@dataclass(frozen=True)
class Check:
    """A check. rows: returns its rows; needed: whether nothing can be trained if the check itself fails."""

    name: str
    rows: Callable[[], Iterable[Row]]
    needed: bool = False

    def guarded(self) -> Iterator[Row]:
        """The rows of the check, and a row about the error if it raises one."""
        try:
            yield from self.rows()
        except Exception as error:  # the report must not fail because the machine is broken
            yield Row(self.name, False, one_line(error), REINSTALL, self.needed)


def library(module: str, fix: str, needed: bool = False) -> Row:
    """Import a module; the row says its version, or the error."""
    try:
        import_module(module)
    except Exception as error:  # a broken binary may raise other errors than ImportError
        return Row(module, False, one_line(error), fix, needed)
    names = _distributions().get(module, [module])
    try:
        return Row(module, True, metadata.version(names[0]), fix, needed)
    except metadata.PackageNotFoundError:
        return Row(module, True, "unknown version", fix, needed)


@cache
def _distributions() -> dict[str, list[str]]:
    """The installed distributions that contain each module."""
    return dict(metadata.packages_distributions())
