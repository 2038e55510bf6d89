"""Pages of the site that are written by the build: the command line's options, and the list of changes."""

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from worldmodels.cli import main as cli  # noqa: E402
from worldmodels.cli.exchange import WHATS  # noqa: E402

_INTRODUCTION = """\
# Command line

This page is made from `worldmodels VERB --help-all`. `worldmodels VERB --help` shows the options that most people need.
For `train` and its stages, the defaults below are those of `car-racing` with the preset `standard`; name your task and
preset before `--help-all` to see others, for example `worldmodels train bin-packing --preset quick --help-all`.

`--policy` is short for `--collect.policy`, and `--phases` for `--evolution.sequence`.
"""
_WIDTH = "100"
"""Columns of the terminal; in a wider one the boxes of the help would stand side by side."""


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for name, content in PAGES.items():
        files.append(File.generated(config, name, content=content()))
    return files


def command_line() -> str:
    """The page on the command line: every verb with what it does and its options."""
    verbs = "\n".join(f"| [`{verb}`](#{verb}) | {text} |" for verb, (_, text) in cli._VERBS.items())
    sections = [_INTRODUCTION, f"| verb | what it does |\n|---|---|\n{verbs}\n"]
    known: dict[str, str] = {}  # the verb whose section lists these options
    for verb, (_, text) in cli._VERBS.items():
        sections.append(f"## {verb}\n\n{text[0].upper()}{text[1:]}.\n")
        for what, about in WHATS.get(verb, {}).items():
            sections.append(f"### {verb} {what}\n\n{about[0].upper()}{about[1:]}.\n")
            sections += _options([verb, what], about, known)
        if verb in WHATS:
            continue
        sections += _options([verb], text, known)
        if verb == "evaluate":
            sections.append("With `--run`, it is the last stage of that run, with the options of [`train`](#train).\n")
    return "\n".join(sections)


def _options(words: list[str], text: str, known: dict[str, str]) -> list[str]:
    """The usage of a verb, or of a verb and what it is about, and its options; ``known``: sections with the same."""
    shown = help_of(*words)
    usage, body = " ".join(shown.partition("\n\n")[0].split()), shown.partition("╭")[2]
    sections = [f"```text\n{usage.removeprefix('usage: ')}\n```\n"]
    sections += [_escaped(about) + "\n" for about in _about(shown, text)]
    if body in known:
        return [*sections, f"Its options are those of [`{known[body]}`](#{known[body]}).\n"]
    known[body] = " ".join(words)
    return sections + [_table(title, lines) for title, lines in _boxes(shown)]


def help_of(*words: str) -> str:
    """What ``worldmodels VERB --help-all`` prints, without colours."""
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8")  # in another encoding, the boxes would be drawn otherwise
    plain = {"COLUMNS": _WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([*words, "--help-all"])
    printed.seek(0)
    return printed.read()


def _about(shown: str, text: str) -> list[str]:
    """The paragraphs of a help text before its boxes, without what the page says elsewhere."""
    paragraphs = shown.partition("\n\n")[2].partition("╭")[0].split("\n\n")
    said = (text.lower(), "worldmodels ", "--policy is short", "with --run run")
    return [
        each for each in (" ".join(part.split()) for part in paragraphs) if not each.lower().startswith(said) and each
    ]


def _boxes(shown: str) -> list[tuple[str, list[str]]]:
    """The boxes of a help text: their titles, and their lines without the frame."""
    boxes: list[tuple[str, list[str]]] = []
    for line in shown.splitlines():
        if line.startswith("╭"):
            boxes.append((line.strip("╭─╮ "), []))
        elif line.startswith("│") and boxes:
            boxes[-1][1].append(line.strip("│")[1:].rstrip())
    return boxes


def _table(title: str, lines: list[str]) -> str:
    """One box as a heading, its introduction and a table of options with their meanings."""
    text: list[str] = []
    options: list[list[str]] = []
    for line in lines:
        name, _, meaning = line.strip().partition("  ")
        if set(line.strip()) <= {"─"}:
            continue
        if line.startswith("-") or (title == "positional arguments" and not line.startswith(" ")):
            options.append([name, meaning.strip()])
        elif options:
            options[-1][1] = f"{options[-1][1]} {line.strip()}".strip()
        else:
            text.append(line.strip())
    rows = [f"| {_names(name)} | {_escaped(meaning)} |" for name, meaning in options if "--help" not in name]
    if not rows:
        return ""
    return "\n".join([f"**{title}**", "", *text, "", "| option | meaning |", "|---|---|", *rows, ""])


def _names(name: str) -> str:
    """An option that can be written in several ways stands in one line for each of them."""
    return "<br>".join(f"`{each}`" for each in re.split(r", (?=-)", name)).replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Add the public objects of the package to the Python reference."""
    return (
        markdown.replace("<!-- public names -->", _public(markdown))
        if "<!-- public names -->" in markdown
        else markdown
    )


def _public(markdown: str) -> str:
    """The objects of ``worldmodels.__all__``: links to those that the page describes below, then all others."""
    import worldmodels

    links, others = [], []
    for name in worldmodels.__all__:
        public = getattr(worldmodels, name)
        path = f"{getattr(public, '__module__', '')}.{getattr(public, '__qualname__', '')}"
        if re.search(rf"^::: {re.escape(path)}$", markdown, re.M):
            links.append(f"- [`worldmodels.{name}`][{path}]")
        elif not name.startswith("__"):
            others.append(f"::: worldmodels.{name}")
    return "\n".join(links) + "\n\n" + "\n\n".join(others)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Show the names that docstrings mark with roles, as in :class:`Agent`, as names alone."""
    return re.sub(r":(?:class|meth|func|attr|mod):<code>~?([^<]*)</code>", r"<code>\1</code>", html)


def changes() -> str:
    """The page with the list of changes."""
    return (ROOT / "CHANGELOG.md").read_text()


PAGES = {"command-line.md": command_line, "changes.md": changes}
"""The pages that are written by the build, and the functions that give their text."""
