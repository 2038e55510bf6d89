"""The example of a world from outside the package works as the documentation says."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from outside import registered
from pages import ROOT
from worldmodels.cli.main import main
from worldmodels.evaluation import evaluate
from worldmodels.execution.executor import LocalExecutor
from worldmodels.run.presets import preset_names
from worldmodels.run.reader import RunReader
from worldmodels.tasks import TASKS, Task, get_task
from worldmodels.tasks.base import Observations

EXAMPLE = ROOT / "examples" / "catch"
LESS = """
--collect.episodes 2 --collect.steps 40 --vision.epochs 1 --vision.batch 16 --vision.window 2
--memory.steps 3 --memory.batch 2 --memory.length 10
--evolution.phases.real.generations 1 --evolution.phases.real.population 4 --evolution.phases.real.episodes 1
--evolution.phases.real.max-steps 10 --evolution.phases.real.validation-episodes 1
--evaluate.episodes 2 --evaluate.steps 40
"""
"""Settings of a run that takes seconds."""


@pytest.fixture
def catch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    """The world, known as the example's entry point makes it known."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["entry-points"]["worldmodels.tasks"].items()
    monkeypatch.syspath_prepend(EXAMPLE)
    with registered(TASKS, name, target):
        yield get_task(name)


def test_the_example_is_trained_and_recorded_like_any_other_world(
    catch: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert preset_names("catch") == ["quick"]
    assert main(["train", "catch", "--preset", "quick", "--run", "run", "--device", "cpu", *LESS.split()]) == 0
    assert len(RunReader("run").evaluation()["returns"]) == 2
    assert main(["record", "catch", "--agent", "run", "--out", "catch.png", "--steps", "20"]) == 0


def test_the_examples_game_pays_for_every_ball_that_is_caught(catch: Task) -> None:
    class Follower:
        """Moves under the ball, which is read off the picture."""

        def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
            frames = observations.frames
            ball = (frames[:, :, :, 0] == 255).any(axis=1).argmax(axis=1) + 5
            paddle = (frames[:, :, :, 2] == 255).any(axis=1).argmax(axis=1) + 8
            return np.where(ball > paddle + 1, 1, np.where(ball < paddle - 1, 2, 0))

    executor = LocalExecutor()
    try:
        returns = evaluate(executor, catch, lambda seeds: Follower(), "gymnasium", [1, 2, 3], 3).returns
        random = evaluate(executor, catch, catch.random_policy, "gymnasium", [1, 2, 3], 3).returns
    finally:
        executor.close()
    assert returns.tolist() == [10.0, 10.0, 10.0] and random.mean() < 0
