"""Episodes in file formats of other programs, by name."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from worldmodels.core.errors import UserError
from worldmodels.core.registry import Registry
from worldmodels.data.episodes import Episode


class EpisodeFormat(Protocol):
    """A file format that other programs use for episodes."""

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a new or empty directory and return how many there were."""
        ...

    def read(self, directory: Path) -> Iterator[Episode]:
        """The episodes of a directory, in order. Raises :class:`UserError` for files that cannot be read."""
        ...


FORMATS: Registry[type[EpisodeFormat]] = Registry(
    "episode format",
    {
        "npz": "worldmodels.data.exchange.npz:NpzEpisodes",
        "minari": "worldmodels.data.exchange.minari:MinariEpisodes",
        "hf-dataset": "worldmodels.data.exchange.parquet:ParquetEpisodes",
    },
    "worldmodels.episode_formats",
)
"""Every format by name; other packages add theirs through the entry point group "worldmodels.episode_formats"."""


def check_empty(directory: Path) -> None:
    """Raise :class:`UserError` for a path to which episodes cannot be written because something is there."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not an empty folder; choose another one for the episodes")


def needs(package: str, purpose: str) -> Any:
    """The module of an optional package; a :class:`UserError` says what to install where it is missing."""
    try:
        return import_module(package)
    except ImportError:
        raise UserError(f'{purpose} needs {package.partition(".")[0]}; pip install "worldmodels[exchange]"') from None


def episode_format(name: str) -> EpisodeFormat:
    """The format called ``name``. Raises :class:`UserError` for an unknown name."""
    return FORMATS.get(name)()
