"""The notebooks run from their first cell to their last, with settings that take seconds."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from cases import ROOT

NOTEBOOKS = ROOT / "docs" / "notebooks"
_TINY = """
    collect.episodes=4 collect.num-envs=2 collect.steps=60 vision.epochs=0.3 vision.batch=16 memory.steps=4
    memory.hidden-size=16 memory.length=20 evaluate.episodes=2 evaluate.num-envs=2 evaluate.steps=40
"""
_PHASE = "generations=2 population=4 episodes=1 max-steps=20 max-steps-growth=0 validation-episodes=2"


def _settings(*phases: str) -> str:
    """Code that sets SETTINGS to a tiny run with these phases of evolution."""
    pairs = [*_TINY.split(), *(f"evolution.phases.{phase}.{pair}" for phase in phases for pair in _PHASE.split())]
    texts = dict(pair.split("=") for pair in pairs)
    return f"SETTINGS |= { ({key: float(text) if '.' in text else int(text) for key, text in texts.items()}) }\n"


SMALLER = {
    "01-the-paper": _settings("real", "visited") + "DREAM_STEPS = 16",
    "02-look-into-v-and-m": "TRACKS, STEPS, HORIZON, ZOOM = 3, 40, 10, 0",
    "03-your-own-world": _settings("real") + "DREAM_STEPS = 16",
}
"""For each notebook, what its cell of parameters says in the test."""


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.py")} == set(SMALLER)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_a_notebook_runs_and_shows_pictures(name: str, tmp_path: Path) -> None:
    notebook = jupytext.read(NOTEBOOKS / f"{name}.py")
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += "\n" + SMALLER[name]
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.parametrize("name", SMALLER)
def test_the_notebook_with_its_outputs_is_that_of_the_source_and_small(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    assert path.stat().st_size < 1_500_000
    shown, source = nbformat.read(path, as_version=4), jupytext.read(NOTEBOOKS / f"{name}.py")
    assert [cell.source for cell in shown.cells] == [cell.source for cell in source.cells]
    assert any(cell.get("outputs") for cell in shown.cells)
    assert not any(output.output_type == "error" for cell in shown.cells for output in cell.get("outputs", []))
