"""The pages that people read, and what is in them: links, commands and blocks of code."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from cases import ROOT

README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
"""The README and other pages of the project's folder, and the documentation."""
RUN = "<!-- run -->"
"""Stands in the line before a block of Python that is run."""
_BLOCK = re.compile(r"(?P<mark><!-- run -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A block of code, and whether it is marked to be run."""

    text: str
    marked: bool


def name_of(page: Path) -> str:
    """The path of a page in the project."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a page in one language, in order."""
    found = [match for match in _BLOCK.finditer(page.read_text()) if match["language"] == language]
    return [Block(match["text"], bool(match["mark"])) for match in found]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", page.read_text())


def commands(page: Path) -> list[str]:
    """The ``worldmodels`` commands in the blocks of a page that are for a shell, without comments."""
    lines = [line for block in blocks(page, "bash") for line in block.text.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [shlex.join(line[line.index("worldmodels") :]) for line in words if "worldmodels" in line[:2]]


def mentioned(page: Path) -> list[str]:
    """The whole commands that a page's prose mentions in `code`; not those with VERB, NAME or ... in them."""
    found = re.findall(r"`(worldmodels\s+[a-z][a-z-]*\s[^`]*)`", prose(page))
    return [" ".join(text.split()) for text in found if not re.search(r"\b(VERB|NAME|RULE)\b|\.\.\.", text)]
