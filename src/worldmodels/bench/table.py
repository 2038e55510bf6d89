"""The printed table of a benchmark."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from worldmodels.bench.machine import caption
from worldmodels.bench.measure import Spread
from worldmodels.core.terminal import console

Save = Callable[[dict[str, Any]], None]
"""Takes the figures of a benchmark before they are printed, to write them to a file."""


class SpeedTable:
    """Rows of rates with their spreads, and rows of single figures below."""

    def __init__(self, title: str, spreads: Mapping[str, Spread], more: Sequence[str] = ()) -> None:
        from rich.table import Table

        self._spreads, self._width = spreads, 4 + len(more)
        self._table = Table(title=title, title_justify="left")
        self._table.add_column("measured")
        for column in ("per second", "lowest", "highest", *more):
            self._table.add_column(column, justify="right")

    def rate(self, name: str, key: str, *more: str) -> None:
        """Add a row with the median, lowest and highest value of the measurement ``key``; none if it was not taken."""
        if key in self._spreads:
            spread = self._spreads[key]
            numbers = (spread.median, min(spread.values), max(spread.values))
            self._row(name, *(f"{number:,.0f}" for number in numbers), *more)

    def figure(self, name: str, value: str) -> None:
        """Add a row with a single figure that follows from the others."""
        self._row(name, value)

    def section(self) -> None:
        """Add a line between rows."""
        self._table.add_section()

    def _row(self, *cells: str) -> None:
        self._table.add_row(*cells, *[""] * (self._width - len(cells)))

    def print(self, result: Mapping[str, Any], *more: str) -> None:
        """Print the table; below it the machine, the lines ``more`` and the notes of the result."""
        self._table.caption = caption(result["machine"], *more, *result["notes"])
        console().print(self._table)


class SideBySide:
    """Figures of several worlds, one column each."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        from rich.table import Table

        self._table = Table(title=title, title_justify="left")
        self._table.add_column("steps per second")
        for column in columns:
            self._table.add_column(column, justify="right", no_wrap=True)

    def row(self, name: str, figures: Sequence[str]) -> None:
        """Add a row with a figure for each column."""
        self._table.add_row(name, *figures)

    def section(self) -> None:
        """Add a line between rows."""
        self._table.add_section()

    def print(self, result: Mapping[str, Any], *more: str) -> None:
        """Print the table; below it the machine, the lines ``more`` and the notes of the result."""
        self._table.caption = caption(result["machine"], *more, *result["notes"])
        console().print(self._table)


def rate(number: float | None) -> str:
    """A rate for a table; nothing for None."""
    return "" if number is None else f"{number:,.0f}"


def extremes(spread: Spread) -> str:
    """The lowest and the highest value of the repeats."""
    return f"{min(spread.values):,.0f}-{max(spread.values):,.0f}"
