"""A second round: its episodes with less noise, its C carried over, and a first round that other second ones share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import tiny
from worldmodels.agent import load_agent
from worldmodels.cli.main import main
from worldmodels.core.files import load_tensors, read_json
from worldmodels.tasks.bin_packing.task import BinPacking

Capture = pytest.CaptureFixture[str]
WORDS = [*tiny("real"), "--collect.num-envs", "4", "--device", "cpu", "--controller.inputs", "z", "h"]
WORDS += ["--phases", "real", "--evaluate.steps", "15", "--collect.episodes", "8", "--rounds", "2"]


def done(run: Path, number: int, stage: str) -> dict[str, Any]:
    """The record of a finished stage."""
    return dict(read_json(run / f"round-{number}" / stage / "done.json", checksum=True))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BinPacking, "max_steps", 20)


@pytest.mark.usefixtures("short")
def test_a_second_round_may_carry_c_over_and_leave_the_noise_out_of_half_of_its_episodes(
    tmp_path: Path, capsys: Capture
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    more = ["--evolution.carry", "ridge", "--collect.later-noise-free", "0.5"]
    assert main(["train", "bin-packing", "--preset", "quick", "--run", str(run), *WORDS, *more]) == 0
    said = capsys.readouterr().err
    assert "C is carried over by ridge regression: R2 of its controls is" in said

    first, second = load_agent(run / "round-1" / "controller"), run / "round-2" / "controller"
    carried = load_tensors(second / "carried.safetensors")[0]["controller"]
    start = load_tensors(second / "1-real" / "evolution.safetensors")[0]["start"]
    np.testing.assert_array_equal(start.numpy(), carried.double().numpy())
    assert carried.shape == first.controller.shape and not torch.equal(carried, first.controller)
    assert done(run, 2, "controller")["inputs"]["evolution"]["carry"] == "ridge"
    assert -100 < done(run, 2, "controller")["metrics"]["carried_r2"] <= 1
    assert done(run, 2, "episodes")["inputs"]["collect"]["later_noise_free"] == 0.5
    assert "carry" not in done(run, 1, "controller")["inputs"]["evolution"]
    assert not {"later_noise", "later_noise_free"} & done(run, 1, "episodes")["inputs"]["collect"].keys()
    assert not (run / "round-1" / "controller" / "carried.safetensors").exists()

    again = ["train", "--from", str(run), "--run", str(other), "--evolution.carry", "weights"]
    assert main([*again, "--collect.later-noise-free", "0"]) == 0
    lines = capsys.readouterr().err.splitlines()
    for stage in ("collect", "vision", "encode", "memory", "controller"):
        assert f"{stage} 1: taken over from {run}" in lines
    assert any(line.startswith("collect 2: done again, because --collect.later-noise-free is 0") for line in lines)
    begun = load_tensors(other / "round-2" / "controller" / "1-real" / "evolution.safetensors")[0]["start"]
    np.testing.assert_array_equal(begun.numpy(), first.controller.double().numpy())


@pytest.mark.usefixtures("short")
def test_with_carry_none_every_round_evolves_a_new_c(tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ["--evolution.carry", "none", "--evolution.starts", "2"]
    assert main(["train", "bin-packing", "--preset", "quick", "--run", str(run), *WORDS, *more]) == 0
    first, second = load_agent(run / "round-1" / "controller"), run / "round-2" / "controller"
    assert bool(first.controller.any())
    for folder in ("1-real", "1-real-start-2"):
        assert not load_tensors(second / folder / "evolution.safetensors")[0]["start"].any()
    assert done(run, 2, "controller")["inputs"]["evolution"]["carry"] == "none"
