"""Tables as CSV files, and numbers as JSON can hold them."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.core.files import write_bytes


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, atomically. The keys of the first row are the columns; None, NaN and infinity become empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: finite(value) for name, value in row.items()} for row in rows)
    write_bytes(path, text.getvalue().encode())


def finite(value: Any) -> Any:
    """The value, or None for a float that is NaN or infinite, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
