"""Links, anchors and pictures of the README and the documentation lead somewhere."""

import re
from pathlib import Path

import pytest
from markdown.extensions.toc import slugify, unique

from pages import PAGES, ROOT, name_of, prose
from site_hooks import generated

_LINK = re.compile(r"(?P<picture>!?)\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)\)")
_ELSEWHERE = ("http://", "https://", "mailto:")


def links(page: Path) -> list[tuple[bool, str]]:
    """Whether it is a picture, and its target, for every link to a file of the project."""
    text = re.sub(r"`[^`\n]*`", "code", prose(page))
    found = [(bool(match["picture"]), match["target"]) for match in _LINK.finditer(text)]
    return [(picture, target) for picture, target in found if not target.startswith(_ELSEWHERE)]


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, as MkDocs makes them."""
    slugs: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        unique(slugify(re.sub(r"[`*]|\]\([^)]*\)", "", heading), "-"), slugs)
    return slugs


def content(target: Path) -> str | None:
    """The text of a page, also of one that the site's build writes; None if there is no such page."""
    if target.is_file():
        return target.read_text() if target.suffix == ".md" else ""
    return generated().get(target.name) if target.parent == ROOT / "docs" else None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: Path) -> None:
    for picture, target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if there.is_dir():
            continue
        text = content(there)
        assert text is not None, f"{name_of(page)} links to {target}, which does not exist"
        assert not picture or there.is_file(), f"{name_of(page)} shows {target}, which does not exist"
        assert not anchor or anchor in anchors(text), f"{name_of(page)} links to {target}, which has no such heading"


def test_pages_of_the_documentation_link_to_nothing_outside_it() -> None:
    """Such a link works in a checkout, but not on the site."""
    outside = [
        f"{name_of(page)}: {target}"
        for page in PAGES
        if page.is_relative_to(ROOT / "docs")
        for _, target in links(page)
        if not (page.parent / target.partition("#")[0]).resolve().is_relative_to(ROOT / "docs")
    ]
    assert not outside


def test_wrong_links_and_anchors_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n\n[a](b.md#c) ![picture](x.png) `[not](code.md)`\n\n```text\n[no](no.md)\n```\n")
    assert links(page) == [(False, "b.md#c"), (True, "x.png")]
    assert anchors(page.read_text()) == {"one-two"} and content(ROOT / "docs" / "no-such-page.md") is None


def test_the_readme_shows_every_world_and_the_dream() -> None:
    pictures = {target for picture, target in links(ROOT / "README.md") if picture}
    assert {f"docs/images/{name}.gif" for name in ("driving", "take-cover", "bin-packing", "dream")} <= pictures
