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
    print(
        f"{options.target}: {result.files:,} files, of which {result.copied:,} ({size}) were copied; all are verified"
    )
    return 0


@dataclass(frozen=True)
class PushOptions:
    """Publish an agent on the Hugging Face hub, with a model card that says its scores and their conditions."""

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")] = text("")
    """A run, a saved agent or a shipped agent."""
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")] = text("")
    """The repository, which is created if it does not exist."""
    scores: Path | None = text(None)
    """Scores to publish, from evaluate --json (default: those of the run)."""
    license: str = text("mit")
    """The licence of the weights, as the hub calls it."""
    private: bool = text(False)
    """Create the repository as a private one."""


def push(verb: str, arguments: Sequence[str], description: str) -> int:
    """Publish an agent."""
    options = parse(PushOptions, verb, arguments, description=description)
    if not options.agent or not options.repo:
        raise UserError("expected an agent and where to publish it: worldmodels push AGENT OWNER/NAME")
    from worldmodels.run.publish import publish

    repo, commit = publish(options.agent, options.repo, options.scores, options.license, options.private)
    print(f"published as hf://{repo}@{commit}")
    return 0


@dataclass(frozen=True)
class PullOptions:
    """Download an agent from the Hugging Face hub into a folder. Nothing that it contains is executed."""

    agent: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME[@REVISION]")] = text("")
    """The agent, and the branch, tag or commit (default: main)."""
    out: Path | None = text(None)
    """The new folder (default: NAME)."""


def pull(verb: str, arguments: Sequence[str], description: str) -> int:
    """Download an agent."""
    options = parse(PullOptions, verb, arguments, description=description)
    if not options.agent:
        raise UserError("expected an agent of the hub: worldmodels pull OWNER/NAME")
    from worldmodels.run.publish import fetch_agent

    folder, pinned = fetch_agent(options.agent, options.out)
    print(f"{folder}: {pinned}; for example: worldmodels evaluate --agent {folder}")
    return 0
