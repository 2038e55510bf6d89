"""URLs on the command line: runs in buckets become local folders before a verb sees them."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from worldmodels.core.errors import UserError

_KNOW_URLS = ("sync", "push", "pull")
"""Verbs that know URLs themselves."""


@contextlib.contextmanager
def local_folders(verb: str, arguments: Sequence[str]) -> Iterator[list[str]]:
    """The arguments of a verb, with local folders instead of the URLs of runs; URLs of agents stay.

    The folder of ``--run`` is written through to its bucket while the block runs; others are only read.
    """
    given = list(arguments)
    if verb in _KNOW_URLS or not any("://" in text for text in given) or {"-h", "--help", "--help-all"} & set(given):
        yield given
        return
    with contextlib.ExitStack() as stack:
        before = ""
        for index, text in enumerate(arguments):
            named = before if before.startswith("--") and "=" not in before else ""
            flag, equals, value = text.partition("=") if text.startswith("--") else (named, "", text)
            if "://" in value and not flag.startswith("--env."):
                folder = _local(stack, verb, flag, value)
                # Without --run, the new run would be beside the folder of the other one, in the cache.
                elsewhere = flag == "--from" and not value.startswith("file:")
                if elsewhere and not any(re.match(r"--run(=|$)", word) for word in arguments):
                    raise UserError(f"expected --run with --from {value}: the folder or the URL of the new run")
                given[index] = f"{flag}={folder}" if equals else str(folder)
            before = text
        yield given


def _local(stack: contextlib.ExitStack, verb: str, flag: str, url: str) -> Path | str:
    """The folder for the URL that is given for a flag, or as an argument of its own."""
    from worldmodels.core.events import say
    from worldmodels.core.storage.mirror import Mirror
    from worldmodels.core.storage.place import is_url, plain_path

    if flag == "--agent":
        return url
    if not is_url(url):
        return plain_path(url)
    if flag == "--run":
        mirror = stack.enter_context(Mirror.working(url))
        say(f"{url}: worked on in {mirror.folder}; every finished part is written there")
        return mirror.folder
    if flag == "--from" or verb == "probe":
        return Mirror.reading(url).folder
    if verb == "runs" and not flag:
        return url
    raise UserError(f"{flag or verb} takes no URL; expected a local path, got {url}")
