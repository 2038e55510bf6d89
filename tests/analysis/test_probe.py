"""Linear probes of V: the regression, the split by episodes, the verb with two pictures of one world."""

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from cases import call, refused
from worldmodels.analysis import probe_plot
from worldmodels.analysis.linear import (
    accuracy,
    areas_under_curves,
    fitted_predictions,
    mean_predictions,
    split_by_group,
)
from worldmodels.analysis.probe import Samples, probe, sample, scores
from worldmodels.cli.main import main
from worldmodels.core.errors import UserError
from worldmodels.core.ridge import r_squared, ridge
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import make_executor
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations, TellsState
from worldmodels.tasks.bin_packing.picture import fitting_levels
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.vision.conv_vae import ConvVAE

RNG = np.random.default_rng(8)


# --- the regression ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 6), (6, 50)], ids=["more examples", "more features"])
@pytest.mark.parametrize("penalty", [1e-6, 0.3, 100.0])
def test_ridge_has_no_slope_left_in_its_own_loss(shape: tuple[int, int], penalty: float) -> None:
    x, y = torch.from_numpy(RNG.standard_normal(shape) + 3), torch.from_numpy(RNG.standard_normal((shape[0], 2)) - 5)
    weights, level = (one.requires_grad_() for one in _fitted(x, y, penalty))
    scale = (x - x.mean(0)).square().sum() / x.shape[1]
    loss = ((x - x.mean(0)) @ weights + level - y).square().sum() + penalty * scale * weights.square().sum()
    loss.backward()
    assert weights.grad is not None and level.grad is not None
    assert float(weights.grad.abs().max()) < 1e-8 and float(level.grad.abs().max()) < 1e-8


def _fitted(x: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    (found,) = ridge(x, y, [penalty])
    return found.weights.clone(), found.level.clone()


def test_a_linear_variable_is_read_exactly_and_noise_is_given_up() -> None:
    groups = np.repeat(np.arange(50), 20)
    features = RNG.standard_normal((1000, 8)).astype(np.float32)
    targets = np.stack([features @ np.arange(8.0) + 7, RNG.standard_normal(1000)], axis=1)
    split = split_by_group(groups)
    told = fitted_predictions(features, targets, split)
    found = r_squared(told, targets[split.measure])
    assert found[0] > 0.9999 and -0.05 < found[1] < 0.05


def test_features_that_never_change_and_no_features_at_all_say_what_the_constant_says() -> None:
    groups, targets = np.repeat(np.arange(10), 3), RNG.standard_normal((30, 2))
    split = split_by_group(groups)
    np.testing.assert_allclose(fitted_predictions(np.ones((30, 4)), targets, split), mean_predictions(targets, split))
    assert (r_squared(mean_predictions(targets, split), targets[split.measure]) <= 0).all()


def test_episodes_are_never_torn_apart() -> None:
    groups = RNG.permutation(np.repeat(np.arange(20), 7))
    split = split_by_group(groups)
    parts = [set(groups[part]) for part in (split.fit, split.choose, split.measure)]
    assert [len(part) for part in parts] == [12, 4, 4] and set.union(*parts) == set(range(20))
    assert (split.fit.astype(int) + split.choose + split.measure == 1).all()
    assert all(part.any() for part in vars(split_by_group(np.arange(5))).values())


def test_scores_are_what_they_are_called() -> None:
    truth = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    found = r_squared(np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]), truth)
    assert found[0] == pytest.approx(0.5) and np.isnan(found[1]), "what never changes cannot be explained"
    so = np.array([[True], [False], [True], [False]])
    told = np.array([[0.9], [0.6], [0.7], [0.1]])
    assert accuracy(told, so).tolist() == [0.75] and areas_under_curves(told, so).tolist() == [1.0]


def test_each_kind_of_variable_is_measured_by_its_own_measure() -> None:
    kinds = RNG.integers(3, 6, 500)
    features = np.eye(6)[kinds] + 0.01 * RNG.standard_normal((500, 6))
    state = {
        "kind": kinds[:, None],
        "size": kinds[:, None].astype(np.float64),
        "is": np.stack([kinds == 4, np.ones(500, bool)], axis=1),
    }
    split = split_by_group(np.arange(500) // 10)
    found, blind = scores(features, state, split), scores(None, state, split)
    assert list(found) == ["kind/accuracy", "size/R2", "is/accuracy", "is/AUC"]
    assert found["kind/accuracy"][0] == 1 and found["size/R2"][0] > 0.99 and found["is/AUC"][0] == 1
    assert np.isnan(found["is/AUC"][1])
    assert blind["kind/accuracy"][0] < 0.6 and blind["size/R2"][0] <= 0 and blind["is/AUC"][0] == 0.5


# --- two pictures of one world -------------------------------------------------------------------------------


def sampled(task: str, episodes: int, per_episode: int, steps: int) -> Samples:
    with contextlib.closing(make_executor()) as executor:
        return sample(executor, get_task(task), 3, episodes, per_episode, steps)


def test_what_is_allowed_can_be_read_off_the_published_picture_too() -> None:
    task = get_task("bin-packing-published")
    env, policy = make_envs(task, 20, "native"), task.random_policy(range(20))
    frames, info = env.reset(seed=list(range(20)))
    for _ in range(400):
        np.testing.assert_array_equal(task.action_mask(task.frames(frames)), info["action_mask"])
        frames, _, terminated, _, info = env.step(policy.act(Observations(task, frames), np.arange(20)))
        assert not terminated.any()
    assert not (frames == make_envs(get_task("bin-packing"), 20, "native").reset(seed=1)[0]).all()


def test_a_published_bar_of_any_length_counts_as_open() -> None:
    world = make_envs(get_task("bin-packing-published"), 1, "native")
    counts, items = np.zeros((1001, 30), np.int64), np.full(1001, 5)
    counts[:, 12] = np.arange(1001)
    found = fitting_levels(world._picture(counts, items), 30, "published")  # type: ignore[attr-defined]
    assert found[:, 12].tolist() == [False] + [True] * 1000 and found.sum() == 1001 + 1000


def test_both_pictures_are_probed_in_the_same_states() -> None:
    counted, published = (sampled(f"bin-packing{name}", 6, 10, 50) for name in ("", "-published"))
    assert set(counted.state) == {"bins at level", "size of the item", "which item", "level is allowed"}
    for name in counted.state:
        np.testing.assert_array_equal(counted.state[name], published.state[name])
    assert not np.array_equal(counted.frames, published.frames)
    np.testing.assert_array_equal(np.bincount(counted.episodes), [11, 10, 10, 10, 10, 11])
    assert len({*counted.state["bins at level"].sum(axis=1)}) > 5, "only one time of the episodes was seen"


def test_samples_do_not_depend_on_how_many_episodes_are_played_together(monkeypatch: pytest.MonkeyPatch) -> None:
    together = sampled("bin-packing", 5, 8, 40)
    monkeypatch.setattr(BinPacking, "num_envs", 2)
    parted = sampled("bin-packing", 5, 8, 40)
    for episode in range(5):
        for kind in ("bins at level", "which item"):
            mine, other = (one.state[kind][one.episodes == episode] for one in (parted, together))
            np.testing.assert_array_equal(mine, other)
        mine, other = (one.frames[one.episodes == episode] for one in (parted, together))
        assert len(mine) >= 8 and np.array_equal(mine, other)


def test_frames_and_states_belong_together() -> None:
    seen = sampled("bin-packing", 4, 8, 40)
    np.testing.assert_array_equal(fitting_levels(seen.frames, 30), seen.state["level is allowed"])
    # The item is a block at the right edge, the higher the larger it is.
    top = seen.frames[:, :, 62].any(axis=-1).argmax(axis=1)
    np.testing.assert_array_equal(top, 64 * (9 - seen.state["size of the item"][:, 0]) // 9)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A run of each picture, no further than V."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BinPacking, "max_steps", 70)
        for task in ("bin-packing", "bin-packing-published"):
            run = tmp_path_factory.mktemp("probed") / task
            few = ["--collect.episodes", "4", "--collect.num-envs", "4", "--vision.epochs", "0.4"]
            few += ["--vision.batch", "32", "--vision.latent-size", "6", "--device", "cpu"]
            for verb in ("collect", "vision"):
                assert main([verb, task, "--preset", "quick", "--run", str(run), *few]) == 0
            made.append(str(run))
    return made


def test_the_verb_compares_runs_in_a_table_a_picture_and_json(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    size = ["--episodes", "10", "--frames", "12", "--steps", "40", "--device", "cpu"]
    for folder in ("one", "two"):
        files = ["--out", str(tmp_path / folder), "--json", str(tmp_path / f"{folder}.json")]
        assert main(["probe", *runs, *size, *files]) == 0
    text = capsys.readouterr().out
    assert all(run in text for run in runs) and "R2" in text and "AUC" in text
    for name in ("one.json", "one/probe.csv", "one/probe.png"):
        other = name.replace("one", "two")
        assert (tmp_path / name).read_bytes() == (tmp_path / other).read_bytes(), "the same seed, other figures"
    result = json.loads((tmp_path / "one.json").read_bytes())
    world = result["worlds"]["bin-packing"]
    assert (world["backend"], world["episodes"], world["steps"], world["cut_short"]) == ("native", 10, 40, True)
    assert result["seed"] == 1 and result["device"] == "cpu" and "torch" in result["made_with"]["versions"]
    rows = result["rows"]
    with open(tmp_path / "one" / "probe.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    found = {(row["vision"], row["variable"], row["measure"]): row for row in rows if row["component"] == -1}
    for run in runs:
        allowed = found[run, "level is allowed", "accuracy"]
        assert 0.5 < allowed["constant"] < allowed["pixels"] <= 1
        # An item of any size is another picture, of which every pixel is a linear function of its kind.
        assert found[run, "which item", "accuracy"]["pixels"] == 1
        assert found[run, "bins at level", "R2"]["constant"] <= 0
        assert len([row for row in rows if row["vision"] == run and row["variable"] == "bins at level"]) == 31
    at_level_0 = next(row for row in rows if row["variable"] == "bins at level" and row["component"] == 0)
    assert at_level_0["latents"] is None, "bins at level 0 are never open"


def test_what_cannot_be_probed_is_said_in_one_line(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(call(capsys, "probe", "no-such-run"), "no agent called 'no-such-run'")
    refused(call(capsys, "probe", runs[0], "--episodes", "4"), "--episodes must be at least 5")
    refused(call(capsys, "probe", runs[0], runs[0]), "expected runs or agents that differ")
    refused(call(capsys, "probe"), "V")
    refused(call(capsys, "probe", "car-racing"), "cannot probe car-racing: car-racing does not tell its state")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes((Path(runs[0]) / "run.json").read_bytes())
    refused(call(capsys, "probe", tmp_path / "run"), "the vision stage", "not finished", "worldmodels vision")


def test_a_task_that_does_not_tell_its_state_is_refused_before_any_episode_is_played() -> None:
    assert not isinstance(get_task("car-racing"), TellsState) and isinstance(get_task("bin-packing"), TellsState)
    visions = {"mine": (get_task("bin-packing"), ConvVAE(4)), "other": (get_task("take-cover"), ConvVAE(4))}
    with contextlib.closing(make_executor()) as executor:
        with pytest.raises(UserError, match="cannot probe other: take-cover does not tell its state"):
            probe(visions, 1, 10, 4, 20, executor)
        with pytest.raises(UserError, match="at least 5 episodes"):
            probe({"mine": visions["mine"]}, 1, 4, 4, 20, executor)


def test_the_picture_of_a_probe_has_a_panel_for_every_variable_and_a_line_for_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(probe_plot, "save_figure", lambda figure, out: figures.append(figure))
    rows: list[dict[str, Any]] = []
    for vision in ("one", "two"):
        for component in (-1, 0, 1, 2):
            told = {"latents": 0.5, "pixels": 0.9, "constant": None}
            rows.append({"vision": vision, "variable": "bins", "measure": "R2", "component": component, **told})
        rows.append({"vision": vision, "variable": "item", "measure": "accuracy", "component": -1, **told})
    probe_plot.probe_plot(rows, tmp_path, "two worlds, seed 1")
    bins, item = figures[0].axes
    assert figures[0].get_suptitle() == "two worlds, seed 1"
    assert bins.get_title(loc="left") == "Bins" and bins.get_ylabel() == "held-out R²"
    drawn = [(line.get_linestyle(), np.asarray(line.get_ydata()).tolist()) for line in bins.lines]
    assert drawn[:2] == drawn[3:5] == [("-", [0.5] * 3), ("--", [0.9] * 3)]
    assert all(np.isnan(values).all() for style, values in drawn if style == ":"), "what is unknown is not drawn"
    heights = [bar.get_height() for bar in item.patches]  # type: ignore[attr-defined]
    assert heights[:2] == heights[3:5] == [0.5, 0.9] and item.get_ylabel() == "held-out accuracy"
