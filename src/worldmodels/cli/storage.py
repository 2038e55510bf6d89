"""The verbs that exchange with other places: sync, push and pull."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.cli.options import parse
from worldmodels.core.errors import UserError
from worldmodels.core.settings import text


@dataclass(frozen=True)
class SyncOptions:
    """Copy a run, a store of episodes or an agent: from a folder to a bucket, back, or between either."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = text("")
    """What to copy: a folder, or the URL of one (s3://, gs://, az://, https://)."""
    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")] = text("")
    """The copy: a folder, or the URL of one in a bucket. What it has already is not copied again."""
    verify: bool = text(False)
    """Read every file that the bucket has already, and copy those that are damaged."""


def sync(verb: str, arguments: Sequence[str], description: str) -> int:
    """Copy a folder from or to a bucket."""
    options = parse(SyncOptions, verb, arguments, description=description)
    if not options.source or not options.target:
        raise UserError("expected what to copy and where: worldmodels sync SOURCE TARGET")
    from worldmodels.core.storage.sync import sync as copy

    result = copy(options.source, options.target, options.verify)
    size = f"{result.bytes / 1e6:,.1f} MB"
    print(f"{options.target}: {result.files:,} files, of which {result.copied:,} ({size}) were copied; all are verified")
    return 0
