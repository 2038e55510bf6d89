"""Episodes that are held out, and weights that are kept where the loss on them was lowest."""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldmodels.core import fit as module
from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.core.fit import CHECKPOINT, HeldOut, LearningRate, Loss, Objective, Schedule, fit
from worldmodels.core.held_out import held_out_episodes


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
def test_a_share_of_the_episodes_is_held_out_evenly_and_by_the_seed(share: float) -> None:
    chosen = [held_out_episodes(600, share, seed) for seed in range(20)]
    for one in chosen:
        assert one.dtype == bool and abs(int(one.sum()) - 600 * share) <= 1
        assert np.diff(np.flatnonzero(one)).max() <= math.ceil(1 / share)
    assert len({tuple(one.tolist()) for one in chosen}) > 1
    assert (held_out_episodes(600, share, 3) == chosen[3]).all()


def test_episodes_of_later_rounds_change_nothing_for_those_before() -> None:
    for seed in range(10):
        whole = held_out_episodes(1000, 0.1, seed)
        assert (held_out_episodes(600, 0.1, seed) == whole[:600]).all()


def test_a_few_episodes_leave_some_for_both_and_one_or_no_share_holds_out_nothing() -> None:
    for seed in range(10):
        assert held_out_episodes(3, 0.1, seed).sum() == 1
        assert held_out_episodes(1, 0.5, seed).sum() == held_out_episodes(50, 0.0, seed).sum() == 0


def numbers_from(step: int) -> Iterator[Tensor]:
    while True:
        yield torch.randn(16, 1, generator=torch.Generator().manual_seed(step))
        step += 1


class Drifting:
    """A weight that is pulled from 0 to 1 while what is held out is best at 0.4."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.weights = nn.ParameterDict({"w": torch.zeros(1)})
        self.met: list[float] = []
        self._stop_at = stop_at

    def loss(self, x: Tensor, step: int) -> Loss:
        if step == self._stop_at:
            interrupt._received = 15
        error = (self.weights["w"] - 1 + 0.01 * x.mean()).square().sum()
        return error, {"error": error.detach()}

    def measure(self) -> dict[str, float]:
        self.met.append(self.weights["w"].item())
        return {"first": (self.met[-1] - 0.4) ** 2, "second": 1.0}

    def fit(self, directory: Path, steps: int = 60, seconds: float = 60.0, every: int = 7) -> float:
        objective = Objective("drift", self.weights, self.loss, ("error",), LearningRate(0.05, 0.5))
        held_out = HeldOut(self.measure, ("first", "second"), every)
        try:
            schedule = Schedule(steps, seconds)
            fit("drift", [objective], numbers_from, schedule, directory, 16, "drift", held_out=held_out)
        finally:
            interrupt._received = None
        return self.weights["w"].item()


def logged(directory: Path) -> list[dict[str, str]]:
    with open(directory / "metrics.csv", newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "drift_per_s"} for row in csv.DictReader(file)]


def test_the_weights_with_the_lowest_held_out_loss_are_kept(tmp_path: Path) -> None:
    drifting = Drifting()
    kept = drifting.fit(tmp_path)
    best = min(drifting.met, key=lambda w: (w - 0.4) ** 2)
    assert kept == best and abs(kept - 0.4) < 0.2 and drifting.met[-1] > 0.9
    assert len(drifting.met) == len({*range(7, 61, 7), 60})


def test_held_out_losses_are_curves_beside_those_of_training(tmp_path: Path) -> None:
    drifting = Drifting()
    drifting.fit(tmp_path)
    rows = logged(tmp_path)
    assert list(rows[0]) == ["step", "error", "loss", "held_out_first", "held_out_second", "held_out_loss", "lr"]
    assert [int(row["step"]) for row in rows] == sorted({*range(7, 61, 7), *range(20, 61, 20)})
    found = [row for row in rows if row["held_out_first"]]
    assert [int(row["step"]) for row in found] == sorted({*range(7, 61, 7), 60})
    for row, w in zip(found, drifting.met, strict=True):
        assert float(row["held_out_first"]) == pytest.approx((w - 0.4) ** 2, abs=1e-9)
        assert float(row["held_out_loss"]) == pytest.approx((w - 0.4) ** 2 + 1, abs=1e-9) and row["error"]


@pytest.mark.parametrize("stop_at", [3, 7, 20, 33, 59])
def test_a_training_that_was_stopped_keeps_the_same_weights_and_rows(stop_at: int, tmp_path: Path) -> None:
    wanted = Drifting().fit(tmp_path / "whole")
    with pytest.raises(interrupt.Interrupted):
        Drifting(stop_at=stop_at).fit(tmp_path / "cut")
    assert Drifting().fit(tmp_path / "cut") == wanted
    assert logged(tmp_path / "cut") == logged(tmp_path / "whole")
    # What a finished training keeps is found again, too.
    assert Drifting().fit(tmp_path / "cut") == wanted


def test_a_training_killed_at_any_checkpoint_keeps_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Drifting().fit(tmp_path / "whole")
    for dead in (1, 8, 30, 50):
        saves = iter(range(1000))

        def dying(path: Path, tensors: Mapping[str, Tensor], meta: Any, saves: Any = saves, dead: int = dead) -> None:
            if next(saves) == dead:
                raise RuntimeError("killed")
            save_tensors(path, dict(tensors), meta)

        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            patch.setattr(module, "save_tensors", dying)
            Drifting().fit(tmp_path / str(dead), seconds=0.0)
        assert Drifting().fit(tmp_path / str(dead)) == wanted


def test_a_checkpoint_whose_kept_weights_are_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(interrupt.Interrupted):
        Drifting(stop_at=20).fit(tmp_path)
    tensors, meta = load_tensors(tmp_path / CHECKPOINT)
    kept = {key: value for key, value in tensors.items() if not key.startswith("best/")}
    assert len(kept) < len(tensors)
    save_tensors(tmp_path / CHECKPOINT, kept, meta)
    with pytest.raises(UserError, match="does not belong to this stage"):
        Drifting().fit(tmp_path)


def test_a_held_out_loss_that_is_not_a_number_is_never_the_lowest(tmp_path: Path) -> None:
    class Poisoned(Drifting):
        def measure(self) -> dict[str, float]:
            return super().measure() | ({"second": math.nan} if self.met[-1] > 0.2 else {})

    poisoned = Poisoned()
    assert poisoned.fit(tmp_path, every=1) == max(w for w in poisoned.met if w <= 0.2)
