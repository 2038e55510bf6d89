"""The scripts in benchmarks/ run, and say what they promise."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worldmodels.core.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


A_SHORTER_WORLD = """
import runpy, sys
from worldmodels.tasks.car_racing.task import CarRacing

CarRacing.max_steps = 100
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script in which agents are trained, whose validations are always of whole episodes."""


def run(*arguments: str, script: str = "car_racing_same.py", shorter: bool = False) -> str:
    command = [sys.executable, *(["-c", A_SHORTER_WORLD] if shorter else []), str(FOLDER / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, env=environment).stdout


def test_the_faster_car_racing_is_compared_in_states_pictures_and_latents(tmp_path: Path) -> None:
    found = run("pictures", "--seeds", "2", "--steps", "6", "--out", str(tmp_path))
    assert "12 pictures of 2 tracks; every state, reward and end is the same" in found
    mean = re.search(r"mean absolute difference ([0-9.]+) of 255", found)
    latents = re.search(r"V's latents: difference ([0-9.]+)%", found)
    assert mean is not None and float(mean[1]) < 0.4
    assert latents is not None and float(latents[1]) < 10
    assert (tmp_path / "worst.png").stat().st_size > 1000


def test_its_scores_are_compared_track_by_track(tmp_path: Path) -> None:
    found = run("scores", "--episodes", "2", "--seed", "3", "--steps", "20", "--out", str(tmp_path))
    assert re.search(r"paired difference, fast - gymnasium: [-+][0-9.]+ \([-+][0-9.]+ to [-+][0-9.]+\)", found)
    assert {name: len(values) for name, values in json.loads((tmp_path / "scores.json").read_text()).items()} == {
        "fast": 2,
        "gymnasium": 2,
    }


def test_its_steps_are_timed_beside_those_of_gymnasium() -> None:
    assert re.search(r"[0-9.]+ times as fast, step against step", run("speed", "--seeds", "1", "--steps", "5"))


# --- strategies ----------------------------------------------------------------------------------------------

_BUDGET = (
    "--strategies openai-es ga --seeds 2 --generations 3 --population 4 --episodes 1 --components 4 --steps 6 "
    "--validate-every 2 --validation-episodes 4 --device cpu --executor local"
)
BUDGET = _BUDGET.split()


@pytest.fixture(scope="module")
def strategies() -> ModuleType:
    """The script as a module."""
    specification = importlib.util.spec_from_file_location("strategies", FOLDER / "strategies.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["strategies"] = module  # where its dataclasses look for their annotations
    specification.loader.exec_module(module)
    return module


def test_strategies_are_compared_with_equal_budgets_and_a_killed_comparison_continues(
    strategies: ModuleType, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--run", str(finished), *BUDGET]
    strategies.main([*where, "--out", str(tmp_path / "whole")])
    result = json.loads((tmp_path / "whole" / "strategies.json").read_bytes())
    assert (tmp_path / "whole" / "strategies.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "evolved in dreams: the last validation" in printed and "evolved in the real world" in printed
    arms = result["arms"]
    assert {(arm["world"], arm["strategy"], arm["seed"]) for arm in arms} == {
        (world, strategy, seed) for world in ("dream", "real") for strategy in ("openai-es", "ga") for seed in (1, 2)
    }
    for arm in arms:
        assert arm["generations"] == [0, 2, 3] and len(arm["validation"]) == 3
        assert arm["steps"][0] == 0 and arm["validation"][0] == arms[0]["validation"][0], "the same untrained C"
        # Four candidates play one episode of at most six steps in each generation.
        assert 0 < arm["steps"][1] <= 2 * 4 * 6 and arm["steps"][1] < arm["steps"][2] <= 3 * 4 * 6
    ga = result["summary"]["real"]["ga"]
    last = [arm["validation"][-1] for arm in arms if (arm["world"], arm["strategy"]) == ("real", "ga")]
    assert ga["last"] == {"median": np.mean(last), "lowest": min(last), "highest": max(last), "values": last}

    calls, original = [0], strategies.Counted.__call__

    def killed(counted: Any, controllers: np.ndarray, seeds: Sequence[int], *rest: Any) -> Any:
        calls[0] += 1
        if calls[0] == 8:  # in the third arm
            raise KeyboardInterrupt
        return original(counted, controllers, seeds, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies.Counted, "__call__", killed)
        with pytest.raises(KeyboardInterrupt):
            strategies.main([*where, "--out", str(tmp_path / "killed")])
    assert len(list((tmp_path / "killed" / "arms").glob("*.json"))) == 2
    strategies.main([*where, "--out", str(tmp_path / "killed")])
    assert json.loads((tmp_path / "killed" / "strategies.json").read_bytes()) == result
    with pytest.raises(UserError, match="was made with other options or of another run; choose another --out"):
        strategies.main([*where, "--episodes", "2", "--out", str(tmp_path / "killed")])


# --- vision models -------------------------------------------------------------------------------------------

SMALL = [
    "--episodes",
    "3",
    "--measured-episodes",
    "5",
    "--steps",
    "75",
    "--batch",
    "16",
    "--window",
    "2",
    "--repeats",
    "1",
]


def test_vision_models_are_compared_on_the_same_frames_and_a_comparison_continues(tmp_path: Path) -> None:
    def compare(*more: str) -> str:
        return run(*SMALL, *more, "--out", str(tmp_path / "out"), script="vision_models.py")

    found = compare("--models", "conv-vae", "patch-vae", "--epochs", "0.5")
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines() if line[:1] == "|"]
    columns = ["epochs", "minutes", "pixel error", "KL", "sharpness", "R2 road", "R2 ahead", "frames/s"]
    assert table[0] == ["V", *columns] and [row[0] for row in table[2:]] == ["conv-vae", "patch-vae"]
    assert all(cell for row in table for cell in row)
    assert (tmp_path / "out" / "pictures.png").stat().st_size > 1000
    weights = tmp_path / "out" / "patch-vae" / "vision.safetensors"
    before = weights.read_bytes(), weights.stat().st_mtime_ns
    again = compare("--models", "patch-vae", "--epochs", "0.5")
    assert (weights.read_bytes(), weights.stat().st_mtime_ns) == before
    assert table[3][:-1] == [cell.strip() for cell in again.splitlines()[2].strip("|").split("|")][:-1]
    refused = subprocess.run([sys.executable, str(FOLDER / "vision_models.py"), *SMALL, "--out", str(tmp_path / "out")],
                             capture_output=True, text=True, timeout=600)  # fmt: skip
    assert refused.returncode and "other settings; choose another --out" in refused.stderr


def test_vision_models_can_be_trained_for_a_time_and_their_agents_scored(tmp_path: Path) -> None:
    changes = {
        "collect.episodes": 2, "collect.reference_episodes": 0, "collect.num_envs": 2, "collect.steps": 70,
        "vision.batch": 16, "vision.epochs": 0.2, "vision.window": 1, "memory.steps": 2, "memory.batch": 2,
        "memory.length": 10, "evaluate.episodes": 2, "evaluate.steps": 3,
    }  # fmt: skip
    for phase in ("evolution.phases.real", "evolution.phases.visited", "evolution.phases.refine"):
        changes |= {f"{phase}.generations": 1, f"{phase}.population": 2, f"{phase}.episodes": 1}
        changes |= {f"{phase}.max_steps": 3, f"{phase}.validation_episodes": 1}
    settings = [word for name, value in changes.items() for word in ("--agent-setting", f"{name}={value}")]
    models = ["--models", "patch-vae", "vae-gan-small"]
    words = [*SMALL, *models, "--seconds", "2", "--agents", *settings, "--out", str(tmp_path)]
    found = run(*words, script="vision_models.py", shorter=True)
    assert [line.split("|")[1].strip() for line in found.splitlines()[2:4]] == models[1:]
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert all(row["epochs"] > 0 and row["score"] for row in rows.values())
    names = {one: (tmp_path / "agents" / f"quick-{one}" / "round-1" / "episodes" / "done.json") for one in models[1:]}
    first, second = (json.loads(path.read_text())["digest"] for path in names.values())
    assert first == second, "they learn from the same episodes"


# --- buckets ------------------------------------------------------------------------------------------------


def test_training_from_a_bucket_is_timed_beside_that_from_the_disk() -> None:
    found = run("--frames", "4000", "--steps", "1", "--repeats", "1", script="buckets.py")
    assert re.search(r"from the second epoch on: [0-9]+% of the disk's training, [0-9]+% of its reading", found)
