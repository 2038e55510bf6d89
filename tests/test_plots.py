"""Plots are drawn from whatever a run has, and show what its files say."""

import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from worldmodels.core.errors import UserError
from worldmodels.evaluation import report
from worldmodels.analysis.plots import _evolution, bar_of_scores, read_metrics, training_curves


def write_metrics(run: Path, stage: str, text: str) -> None:
    folder = run / "round-1" / stage
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


def drawn(path: Path) -> np.ndarray:
    """The picture, which must not be blank."""
    picture = np.asarray(imageio.imread(path))
    assert picture.shape[0] > 200 and picture.std() > 5
    return picture


def test_curves_of_a_whole_run_are_drawn(tmp_path: Path) -> None:
    write_metrics(
        tmp_path, "vision", "step,reconstruction,kl,loss,lr,vision_per_s\n20,90,17,107,1e-4,900\n40,50,16,66,1e-4,900\n"
    )
    write_metrics(
        tmp_path, "memory", "step,nll,reward,end,loss,lr,memory_per_s\n20,1.4,1,.1,2.5,1e-3,9\n40,1.3,1,.1,2.4,1e-3,9\n"
    )
    header = "step,mean,best,sd,horizon,steps_per_s,sigma,validation,validation_sd\n"
    write_metrics(tmp_path, "controller", header + "1,5,9,2,250,900,.1,,\n2,8,12,2,265,900,.1,50,10\n")
    result = report("car-racing", "me", "gymnasium", [1, 2, 3], np.array([1.0, 5.0, 9.0]))
    (tmp_path / "summary.json").write_text(json.dumps({"evaluation": result}))
    training_curves(tmp_path, tmp_path / "curves.png")
    drawn(tmp_path / "curves.png")


def test_polishing_follows_the_generations_that_it_came_after(tmp_path: Path) -> None:
    header = "step,mean,best,sd,horizon,validation,validation_sd\n"
    write_metrics(tmp_path, "controller", header + "1,5,9,2,250,,\n2,8,12,2,265,50,10\n")
    training_curves(tmp_path, tmp_path / "before.png")
    # What another number of generations was followed by is not shown.
    write_metrics(tmp_path, "controller/polish-after-1", header + "1,5,9,2,1000,90,1\n")
    training_curves(tmp_path, tmp_path / "other.png")
    write_metrics(tmp_path, "controller/polish-after-2", header + "1,9,10,1,1000,,\n2,11,12,1,1000,60,9\n")
    data, main = _evolution(tmp_path / "round-1" / "controller")
    assert main == 2 and data["step"].tolist() == [1, 2, 3, 4] and data["mean"].tolist() == [5, 8, 9, 11]
    training_curves(tmp_path, tmp_path / "after.png")
    before, other, after = (drawn(tmp_path / f"{name}.png") for name in ("before", "other", "after"))
    assert np.array_equal(before, other) and not np.array_equal(before, after)


def test_curves_are_drawn_when_stages_are_missing(tmp_path: Path) -> None:
    write_metrics(tmp_path, "memory", "step,nll,loss\n20,1.4,1.4\n40,1.3,1.3\n")
    training_curves(tmp_path, tmp_path / "curves.png")
    drawn(tmp_path / "curves.png")


def test_a_higher_score_gives_another_picture(tmp_path: Path) -> None:
    for name, mean in (("low", 10.0), ("high", 800.0)):
        rows = [("random", report("t", "r", "b", [1, 2], np.array([-50.0, -60.0])))]
        rows.append(("agent", report("t", "a", "b", [1, 2], np.array([mean, mean + 10]))))
        bar_of_scores(rows, tmp_path / f"{name}.png")
    assert not np.array_equal(drawn(tmp_path / "low.png"), drawn(tmp_path / "high.png"))


def test_empty_cells_are_gaps_and_an_unfinished_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,mean,validation\n1,5,\n2,8,50\n3,9")
    data = read_metrics(tmp_path / "metrics.csv")
    assert data["step"].tolist() == [1, 2] and data["mean"].tolist() == [5, 8]
    assert np.isnan(data["validation"][0]) and data["validation"][1] == 50
    assert read_metrics(tmp_path / "absent.csv") == {}


def test_a_damaged_evaluation_does_not_keep_the_curves_from_being_drawn(tmp_path: Path) -> None:
    write_metrics(tmp_path, "vision", "step,reconstruction,kl\n20,90,17\n40,50,16\n")
    (tmp_path / "summary.json").write_text('{"evaluation": {"returns": [1,')
    training_curves(tmp_path, tmp_path / "curves.png")
    drawn(tmp_path / "curves.png")


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected the directory of a run"):
        training_curves(tmp_path, tmp_path / "curves.png")


def test_no_scores_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scores to draw"):
        bar_of_scores([], tmp_path / "scores.png")
