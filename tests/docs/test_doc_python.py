"""Blocks of Python in the documentation compile, and those that are marked run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pages import PAGES, ROOT, blocks, name_of

OTHERS = [page for page in PAGES if page.name not in ("README.md", "python.md")]
"""Pages other than those whose blocks are all run by tests of their own."""
MARKED = [page for page in OTHERS if any(block.marked for block in blocks(page, "python"))]
_SNIPPET = re.compile(r'^--8<-- "(.*)"$', re.M)


@pytest.mark.parametrize("page", OTHERS, ids=name_of)
def test_every_block_of_python_compiles(page: Path) -> None:
    for number, block in enumerate(blocks(page, "python"), 1):
        text = _SNIPPET.sub(lambda match: (ROOT / match[1]).read_text(), block.text)
        compile(text, f"{name_of(page)}, block {number}", "exec")


@pytest.mark.parametrize("page", MARKED, ids=name_of)
def test_the_marked_blocks_of_a_page_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    text = "\n".join(block.text for block in blocks(page, "python") if block.marked)
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_some_pages_have_blocks_that_run() -> None:
    assert {"dreams.md", "extend.md"} <= {page.name for page in MARKED}
