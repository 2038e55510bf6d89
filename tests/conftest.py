"""Fixtures that several modules share."""

from pathlib import Path

import pytest

import cases
from faults import MAX_STEPS
from worldmodels.execution import process_env, workers
from worldmodels.tasks.car_racing.task import CarRacing


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that nothing has disturbed. Copy it before changing it."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    outcome = cases.command("train", "car-racing", "--run", run, *cases.TINY)
    assert outcome.code == 0, outcome.err
    return run


@pytest.fixture(autouse=True)
def one_core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process play and compute in it alone, and start no processes that import PyTorch."""
    if request.path.parent.name in ("analysis", "cli", "run"):
        for module in (process_env, workers):
            monkeypatch.setattr(module, "usable_cores", lambda: 1)


@pytest.fixture
def short_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world of the tiny run, in this process."""
    monkeypatch.setattr(CarRacing, "max_steps", MAX_STEPS)
