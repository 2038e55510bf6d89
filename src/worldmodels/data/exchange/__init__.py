"""Episodes in file formats of other programs, by name."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

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
    "episode format", {"npz": "worldmodels.data.exchange.npz:NpzEpisodes"}, "worldmodels.episode_formats"
)
"""Every format by name; other packages add theirs through the entry point group "worldmodels.episode_formats"."""


def episode_format(name: str) -> EpisodeFormat:
    """The format called ``name``. Raises :class:`UserError` for an unknown name."""
    return FORMATS.get(name)()
