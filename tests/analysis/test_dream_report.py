"""What is said about dreams: errors ahead, foreseen ends, scores; and the dream beside the real world."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from test_dream import dreamer, driven
from worldmodels.run.config import DreamReportConfig
from worldmodels.analysis.fidelity import (
    area_under_curve,
    controllers_of_all_strengths,
    correlation,
    open_loop,
    predicted,
    ranks,
    watch,
)
from worldmodels.core.errors import UserError
from worldmodels.analysis.dream_report import DreamReport
from worldmodels.data.episodes import Episode

TINY = DreamReportConfig(
    episodes=3, horizon=6, starts=2, controllers=5, controller_episodes=2, temperatures=(0.5, 1.0), generations=1,
    games=3, steps=12,
)  # fmt: skip


def episode(steps: int, terminated: bool = True) -> Episode:
    """Noise, with a reward at every third step."""
    rng = np.random.default_rng(steps)
    frames = rng.integers(0, 256, (steps + 1, 64, 64, 3), dtype=np.uint8)
    rewards = (np.arange(steps) % 3 == 0).astype(np.float32)
    return Episode(frames, rng.random((steps, 3), dtype=np.float32), rewards, terminated, steps, "envpool")


def test_watching_an_episode_gives_the_states_before_every_step() -> None:
    agent = dreamer()
    watched = watch(agent, one := episode(9))
    with torch.no_grad():
        inputs = torch.cat([watched.mu[:-1], torch.from_numpy(one.actions)], dim=1)
        hidden, _ = agent.memory.lstm(inputs[None])
    assert watched.h.shape == (10, 16) and (watched.h[0] == 0).all()
    torch.testing.assert_close(watched.h[1:], hidden[0], atol=1e-5, rtol=1e-5)


def test_one_step_ahead_the_dream_errs_by_what_m_did_not_know() -> None:
    agent = dreamer()
    watched = [watch(agent, episode(steps)) for steps in (30, 40)]
    found = open_loop(agent, watched, horizon=5, starts=60, seed=1)
    assert found.starts == 120 and found.latent.shape == (5,)
    squares = []
    for one in watched:
        with torch.no_grad():
            mixture = agent.memory.heads(one.h[1:]).mixture
        weights = mixture.log_weights.exp()
        mean = (weights * mixture.means).sum(-1)
        spread = (weights * (mixture.means**2 + (2 * mixture.log_scales).exp())).sum(-1) - mean**2
        squares.append(spread + (mean - one.z[1:]) ** 2)
    assert found.latent[0] == pytest.approx(float(torch.cat(squares).mean().sqrt()), rel=0.1)
    assert np.isfinite(found.frame[[0, 1, 2, 4]]).all() and np.isnan(found.frame[3])
    assert 0 < found.frame_floor < 255


def test_without_an_episode_that_is_long_enough_nothing_is_claimed() -> None:
    agent = dreamer()
    found = open_loop(agent, [watch(agent, episode(4))], horizon=5, starts=2, seed=1)
    assert found.starts == 0 and np.isnan(found.latent).all()


def test_foreseen_ends_are_counted_against_those_that_came() -> None:
    agent = dreamer()
    assert agent.memory.end_head is not None and agent.memory.reward_head is not None
    torch.nn.init.zeros_(agent.memory.end_head.weight)
    torch.nn.init.constant_(agent.memory.end_head.bias, 2.0)
    found = predicted(agent, [watch(agent, episode(9)), watch(agent, episode(7, terminated=False))], window=3)
    assert (found.ends, found.steps) == (1, 16)
    assert found.end_auc == 0.5 and found.end_recall == 1.0 and found.end_precision == pytest.approx(1 / 16)


def test_the_area_under_the_curve_is_the_chance_of_the_right_order() -> None:
    rng = np.random.default_rng(3)
    scores, truth = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    assert area_under_curve(scores, truth) == pytest.approx(np.mean(pairs))
    assert area_under_curve(np.arange(4.0), np.array([False, False, True, True])) == 1.0
    assert np.isnan(area_under_curve(scores, np.zeros(80, bool)))


def test_ranks_of_equal_scores_are_equal_and_a_score_that_never_varies_correlates_with_nothing() -> None:
    assert ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [1.5, 0.0, 1.5, 3.0]
    assert np.isnan(correlation(ranks(np.full(4, 2100.0)), ranks(np.arange(4.0))))
    assert correlation(ranks(np.array([1.0, 10.0, 100.0])), ranks(np.array([3.0, 4.0, 5.0]))) == pytest.approx(1.0)


def test_controllers_range_from_the_agents_own_to_nothing_of_it() -> None:
    agent = dreamer()
    some = controllers_of_all_strengths(agent, 40, 1)
    best = agent.controller.numpy()
    np.testing.assert_allclose(some[0], best, rtol=1e-6)
    likeness = [np.corrcoef(one, best)[0, 1] if one.std() else 0.0 for one in some]
    assert likeness[0] > 0.99 and abs(likeness[-1]) < 0.5 and len(np.unique(some, axis=0)) >= 35


def test_the_report_writes_its_tables_and_pictures_and_measures_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = dreamer(end_bias=-6.0)
    report = DreamReport(agent, TINY, 1, tmp_path).run()
    assert report["prediction"]["starts"] == 6 and report["correlation"]["controllers"] == 5
    assert [row["temperature"] for row in report["temperatures"]] == [0.5, 1.0]
    names = {"open_loop", "prediction", "correlation", "temperatures"}
    assert {path.stem for path in tmp_path.glob("*.png")} == {path.stem for path in tmp_path.glob("*.csv")} == names
    rows = list(csv.DictReader((tmp_path / "open_loop.csv").open()))
    assert [row["steps_ahead"] for row in rows] == list("123456") and rows[3]["frame_rmse"] == ""
    capsys.readouterr()
    assert DreamReport(agent, TINY, 1, tmp_path).run() == report
    assert "measuring" not in "".join(capsys.readouterr())
    other = DreamReport(dreamer(end_bias=-6.0, seed=1), TINY, 1, tmp_path).run()
    assert "generations" in "".join(capsys.readouterr()), "another agent's C is another one's to evolve"
    assert other["prediction"] != report["prediction"] and other["temperatures"] != report["temperatures"]
    assert "temperatures" not in DreamReport(agent, replace(TINY, generations=0), 1, tmp_path / "short").run()
