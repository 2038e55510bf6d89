"""The documentation builds as a site that needs no other server."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pages import ROOT
from worldmodels.cli import main as cli


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Resources(HTMLParser):
    """Collects what a page loads, and what it calls itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.classes: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.classes |= set(values.get("class", "").split())
        self.loaded += [values[name] for name in ("src", "srcset", "data") if name in values]
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values.get("href", ""))


def test_every_page_is_there(site: Path) -> None:
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in ROOT.glob("docs/**/*.md")}
    written |= {Path("command-line.html"), Path("changes.html")}
    assert written <= {path.relative_to(site) for path in site.rglob("*.html")}


def test_files_that_pages_include_are_shown_in_full(site: Path) -> None:
    """A marker that was not understood would be shown instead."""
    included = {"own-world.html": ("class Catch", "[project.entry-points"), "ppo-in-a-dream.html": ("DreamVecEnv(",)}
    for name, words in included.items():
        text = re.sub(r"<[^>]*>", "", (site / "how-to" / name).read_text())
        assert all(word in text for word in words), name
    for path in site.rglob("*.html"):
        assert not re.search(r"-+8\s*(&lt;|<)", re.sub(r"<[^>]*>", "", path.read_text())), path.name


def test_nothing_is_loaded_from_another_server(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Resources()
        page.feed(path.read_text())
        assert page.loaded, path
        elsewhere = [name for name in page.loaded if re.match(r"(https?:)?//", name)]
        assert not elsewhere, f"{path.name} loads {elsewhere}"
        # For diagrams of this class, the theme's script loads a library from another server.
        assert "mermaid" not in page.classes, path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?https?:", path.read_text()), path.name


def test_the_command_line_page_lists_every_verb_and_its_options(site: Path) -> None:
    text = (site / "command-line.html").read_text()
    for verb in cli._VERBS:
        assert f'<h2 id="{verb}">' in text, verb
    for option in ("--evolution.phases.finetune.sigma", "--memory.steps", "--report.horizon", "--visions"):
        assert (f"<code>{option}" in text) == (option != "--visions"), option
    assert "Reads round-N/latents." in text and "Space lets the agent play" in text, "what a verb does, in detail"
    assert "least 1; default: 128" in text, "bounds and defaults"
    assert "Its options are those of" in text and 'href="#train"' in text, "options are listed once"


def test_the_python_reference_shows_docstrings_without_markup(site: Path) -> None:
    text = (site / "reference.html").read_text()
    for name in ("worldmodels.load_agent", "worldmodels.tasks.base.Task.frames", "worldmodels.run.reader.RunReader"):
        assert f'id="{name}"' in text, name
    assert not re.search(r":(class|meth|func|attr|mod):", text)
    assert "<!-- public names -->" not in text
