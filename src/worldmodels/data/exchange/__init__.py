"""Episodes in the formats of others, by name."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from worldmodels.core.registry import Registry
from worldmodels.data.episodes import Episode


class EpisodeFormat(Protocol):
    """A way to write episodes for others, and to read them back."""

    def write(self, episodes: Iterable[Episode], directory: Path) -> int:
        """Write episodes into a directory, new or empty; the number of them."""
        ...

    def read(self, directory: Path) -> Iterator[Episode]:
        """The episodes of a directory, in order; what cannot be read is a :class:`UserError`."""
        ...


FORMATS: Registry[type[EpisodeFormat]] = Registry(
    "episode format", {"npz": "worldmodels.data.exchange.npz:NpzEpisodes"}, "worldmodels.episode_formats"
)
"""Every format by name; other packages add theirs by the entry point group "worldmodels.episode_formats"."""


def episode_format(name: str) -> EpisodeFormat:
    """The format called ``name``; an unknown name is a :class:`UserError`."""
    return FORMATS.get(name)()
