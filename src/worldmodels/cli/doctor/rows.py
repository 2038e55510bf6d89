"""The rows of the doctor's report, and checks that give them whatever breaks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata

from worldmodels.cli.doctor.trials import one_line

REINSTALL = 'pip install "worldmodels[all]"'
"""What repairs most."""


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    what: str
    """What was looked at."""
    works: bool
    """Whether it works."""
    found: str
    """What was found, or what went wrong, in one line."""
    fix: str = ""
    """What to do when it does not work."""
    needed: bool = False
    """Whether nothing can be trained without it."""
    task: str = ""
    """The world that it is about."""
    backend: str = ""
    """The backend of that world that it is about."""
    reference: bool = False
    """Whether that is the one on which scores count, without which there is no training."""


@dataclass(frozen=True)
class Check:
    """Something to look at, as ``rows()``; ``needed``: whether nothing can be trained if the check itself breaks."""

    name: str
    rows: Callable[[], Iterable[Row]]
    needed: bool = False

    def guarded(self) -> Iterator[Row]:
        """Its rows as they come; one more if it breaks."""
        try:
            yield from self.rows()
        except Exception as error:  # a report about a broken machine must survive every breakage
            yield Row(self.name, False, one_line(error), REINSTALL, self.needed)


def library(module: str, fix: str, needed: bool = False) -> Row:
    """Import a module; what was found is its version."""
    try:
        import_module(module)
    except Exception as error:  # a broken binary raises much more than ImportError
        return Row(module, False, one_line(error), fix, needed)
    names = _distributions().get(module, [module])
    try:
        return Row(module, True, metadata.version(names[0]), fix, needed)
    except metadata.PackageNotFoundError:
        return Row(module, True, "unknown version", fix, needed)


@cache
def _distributions() -> dict[str, list[str]]:
    """What brings each module."""
    return dict(metadata.packages_distributions())
