"""The page about Python: all its blocks run, one after the other, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

from cases import ROOT

PAGE = ROOT / "docs" / "python.md"


def test_the_blocks_of_the_page_about_python_run_in_an_empty_folder(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) > 8
    program = tmp_path / "page.py"
    program.write_text("\n".join(blocks))
    folder = tmp_path / "reader"
    folder.mkdir()
    done = subprocess.run([sys.executable, program], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "collect finished runs/first" in lines and "memory finished None" in lines
    assert "first bin-packing finished 6/6" in " ".join(line.rpartition(" ")[0] for line in lines)
    assert lines[-1] == "there is no setting memory.stepz; did you mean 'steps'?"


def test_every_public_name_is_on_the_page() -> None:
    import worldmodels

    text = PAGE.read_text()
    functions = [name for name in worldmodels.__all__ if name[0].islower() and name[0] != "_"]
    assert [name for name in functions if f"worldmodels.{name}" not in text] == []
