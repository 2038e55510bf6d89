"""What the report says of dreams: errors ahead, predicted ends, and scores."""

import contextlib
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from dream_agents import dreamer
from worldmodels.agent import Agent
from worldmodels.analysis import dream_plots
from worldmodels.analysis.config import DreamReportConfig
from worldmodels.analysis.dream_report import DreamReport, print_report
from worldmodels.analysis.dream_summary import dreaming_text, share_of_way
from worldmodels.analysis.fidelity import (
    OpenLoop,
    controllers_of_all_strengths,
    encode_episode,
    open_loop,
    prediction_scores,
    predictions,
)
from worldmodels.analysis.statistics import area_under_curve, correlation, ranks
from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.execution.executor import make_executor
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.tasks import get_task
from worldmodels.vision.conv_vae import ConvVAE

TINY = DreamReportConfig(
    episodes=3, horizon=6, starts=2, controllers=5, controller_episodes=2, temperatures=(0.5, 1.0), generations=1,
    games=3, steps=12,
)  # fmt: skip


EVOLUTION = EvolutionConfig(
    strategy="sep-cma", components=4, phases={"dream": PhaseConfig(world="dream", population=4, episodes=2)}
)


def measured(agent: Agent, config: DreamReportConfig, folder: Path, **settings: Any) -> dict[str, Any]:
    """The whole report of an agent."""
    evolution, dream = settings.get("evolution", EVOLUTION), settings.get("dream", DreamConfig())
    with contextlib.closing(make_executor()) as executor:
        return DreamReport(agent, config, 1, folder, evolution, dream, executor).run()


def episode(steps: int, terminated: bool = True) -> Episode:
    """Noise, with a reward at every third step."""
    rng = np.random.default_rng(steps)
    frames = rng.integers(0, 256, (steps + 1, 64, 64, 3), dtype=np.uint8)
    rewards = (np.arange(steps) % 3 == 0).astype(np.float32)
    return Episode(frames, rng.random((steps, 3), dtype=np.float32), rewards, terminated, steps, "envpool")


def test_encoding_an_episode_gives_the_states_of_m_before_every_step() -> None:
    agent = dreamer()
    encoded = encode_episode(agent, one := episode(9))
    with torch.no_grad():
        inputs = torch.cat([encoded.mu[:-1], torch.from_numpy(one.actions)], dim=1)
        hidden, _ = agent.memory.lstm(inputs[None])
    assert encoded.h.shape == (10, 16) and (encoded.h[0] == 0).all()
    torch.testing.assert_close(encoded.h[1:], hidden[0], atol=1e-5, rtol=1e-5)


def test_one_step_ahead_the_dream_errs_by_what_m_did_not_know() -> None:
    agent = dreamer()
    encoded = [encode_episode(agent, episode(steps)) for steps in (30, 40)]
    found = open_loop(agent, encoded, horizon=5, starts=60, seed=1)
    assert found.starts == 120 and found.latent.shape == (5,)
    squares = []
    for one in encoded:
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
    found = open_loop(agent, [encode_episode(agent, episode(4))], horizon=5, starts=2, seed=1)
    assert found.starts == 0 and np.isnan(found.latent).all()


def test_predicted_ends_are_counted_against_those_that_came() -> None:
    agent = dreamer()
    assert agent.memory.end_head is not None and agent.memory.reward_head is not None
    torch.nn.init.zeros_(agent.memory.end_head.weight)
    torch.nn.init.constant_(agent.memory.end_head.bias, 2.0)
    episodes = [encode_episode(agent, episode(9)), encode_episode(agent, episode(7, terminated=False))]
    found = prediction_scores(agent, episodes, window=3)
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
    report = measured(agent, TINY, tmp_path)
    assert report["prediction"]["starts"] == 6 and report["correlation"]["controllers"] == 5
    assert [row["temperature"] for row in report["temperatures"]] == [0.5, 1.0]
    names = {"open_loop", "prediction", "correlation", "temperatures"}
    assert {path.stem for path in tmp_path.glob("*.png")} == {path.stem for path in tmp_path.glob("*.csv")} == names
    rows = list(csv.DictReader((tmp_path / "open_loop.csv").open()))
    assert [row["steps_ahead"] for row in rows] == list("123456") and rows[3]["frame_rmse"] == ""
    capsys.readouterr()
    assert measured(agent, TINY, tmp_path) == report
    assert "measuring" not in "".join(capsys.readouterr())
    other = measured(dreamer(end_bias=-6.0, seed=1), TINY, tmp_path)
    assert "generations" in "".join(capsys.readouterr()), "another agent's C is another one's to evolve"
    assert other["prediction"] != report["prediction"] and other["temperatures"] != report["temperatures"]
    assert "temperatures" not in measured(agent, replace(TINY, generations=0), tmp_path / "short")
    capsys.readouterr()
    print_report(report, tmp_path)
    text = capsys.readouterr()
    assert "from 6 starts" in text.err and "correlation" in text.err and "temperature" in text.out


def test_every_part_is_bound_to_the_settings_that_it_depends_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = dreamer(end_bias=-6.0)

    def anew(config: DreamReportConfig = TINY, **settings: Any) -> list[str]:
        capsys.readouterr()
        measured(agent, config, tmp_path, **settings)
        return [line.removeprefix("measuring ") for line in capsys.readouterr().err.splitlines() if "measuring" in line]

    both = ["temperature-0.5", "temperature-1"]
    assert anew() == ["prediction", "correlation", *both]
    assert anew(replace(TINY, horizon=5)) == ["prediction"]
    assert anew(replace(TINY, horizon=5, controllers=4)) == ["correlation"]
    assert anew(replace(TINY, horizon=5, controllers=4, temperatures=(0.5, 2.0))) == ["temperature-2"]
    few = replace(TINY, horizon=5, controllers=4, games=2)
    assert anew(few) == both
    assert anew(few, dream=DreamConfig(temperature=0.7)) == ["correlation"]
    short = replace(few, generations=0)
    monkeypatch.setattr("worldmodels.analysis.dream_report.conditions", lambda *about: {"versions": "others"})
    assert anew(short, dream=DreamConfig(temperature=0.7)) == ["prediction", "correlation"]


def test_deleted_tables_and_pictures_are_written_again_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, short = dreamer(end_bias=-6.0), replace(TINY, generations=0)
    report = measured(agent, short, tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert {"open_loop.csv", "prediction.png", "correlation.csv", "report.json"} <= written.keys()
    for name in written:
        (tmp_path / name).unlink()
    capsys.readouterr()
    assert measured(agent, short, tmp_path) == report
    assert "measuring" not in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.*")} == written


def test_the_report_says_what_it_was_measured_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(dreamer(end_bias=-6.0), replace(TINY, generations=0), tmp_path)
    wanted = {"task": "car-racing", "seed": 1, "backend": "fast", "device": "cpu", "steps": 12, "cut_short": True}
    assert {name: report[name] for name in wanted} == wanted
    assert {"torch", "box2d"} <= report["made_with"]["versions"].keys()
    assert json.loads((tmp_path / "report.json").read_bytes()) == report
    capsys.readouterr()
    print_report(report, tmp_path)
    assert "cut short at 12 steps: not a score" in capsys.readouterr().err


def test_other_starts_of_dreams_are_measured_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent, short = dreamer(end_bias=-6.0), replace(TINY, generations=0)
    measured(agent, short, tmp_path)
    assert agent.starts is not None
    agent.starts = agent.starts + 1
    capsys.readouterr()
    measured(agent, short, tmp_path)
    assert "measuring correlation" in capsys.readouterr().err


def test_controllers_are_evolved_as_the_phase_called_dream_says(tmp_path: Path) -> None:
    agent = dreamer(end_bias=-6.0)
    phase = PhaseConfig(world="dream", max_steps=5, max_steps_growth=3, validate_every=1, reevaluate_top_k=3)
    evolution, dream = EvolutionConfig(phases={"dream": phase}), DreamConfig(start_steps=agent.task.start_steps)
    report = DreamReport(agent, replace(TINY, generations=7), 1, tmp_path, evolution, dream, make_executor())
    wanted = replace(
        phase, generations=7, validate_every=7, validation_episodes=1, reevaluate_top_k=1, max_steps_growth=0
    )
    assert report._phase_settings() == wanted
    # Training that starts dreams elsewhere than the agent keeps moments has shorter ones than those from there.
    elsewhere = replace(report, dream=DreamConfig(start_steps=(0, 500)))
    assert elsewhere._phase_settings() == replace(wanted, max_steps=12)
    unlimited = replace(report, evolution=EvolutionConfig(phases={"dream": replace(phase, max_steps=0)}))
    assert unlimited._phase_settings().max_steps == 12


def test_without_a_phase_called_dream_the_report_says_so_before_it_measures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a phase called dream, whose settings the report uses; phases: real"):
        measured(dreamer(), TINY, tmp_path, evolution=EvolutionConfig())
    assert not list(tmp_path.iterdir())


def test_the_accuracy_of_the_action_mask_is_that_of_m_on_real_frames() -> None:
    torch.manual_seed(0)
    task = get_task("bin-packing")
    memory = MDNRNN(4, 30, 8, 2, reward=True, mask_size=30)
    agent = Agent(task, ConvVAE(4), memory, torch.zeros(30 * 5))
    rng = np.random.default_rng(0)
    frames = np.zeros((7, 64, 64, 3), np.uint8)
    frames[:, 40:, :30] = rng.integers(0, 2, (7, 24, 30, 1)) * 255
    one = Episode(frames, np.eye(30, dtype=np.float32)[:6], np.ones(6, np.float32), False, 3, "native")
    found = prediction_scores(agent, [encoded := encode_episode(agent, one)], window=2)
    mask = task.action_mask(frames)
    assert mask is not None
    with torch.inference_mode():
        told = memory.mask_logits(encoded.z) > 0
    assert found.mask_accuracy == pytest.approx((told.numpy() == mask).mean())
    assert np.isnan(found.end_auc) and found.ends == 0


def test_plots_of_dreams_show_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(dream_plots, "save_figure", lambda figure, out: figures.append(figure))
    agent = dreamer()
    episodes = [encode_episode(agent, episode(steps)) for steps in (30, 40)]
    opened = open_loop(agent, episodes, horizon=5, starts=3, seed=1)
    dream_plots.open_loop_plot(opened, tmp_path, "car-racing, seed 1")
    left, right = figures[0].axes
    assert figures[0].get_suptitle() == "car-racing, seed 1"
    np.testing.assert_array_equal(left.lines[0].get_xydata(), np.stack([np.arange(1, 6), opened.latent], axis=1))
    assert [line.get_label() for line in left.lines] == ["dream", "nothing changes", "two random moments"]
    assert np.asarray(right.lines[0].get_xdata()).tolist() == [1, 2, 3, 5], "frames are compared at some steps only"
    found = predictions(agent, episodes, window=10)
    dream_plots.prediction_plot(found, 10, tmp_path)
    rewards, ends = figures[1].axes
    np.testing.assert_allclose(rewards.collections[0].get_offsets(), np.stack([found.reward, found.reward_real], 1))
    assert rewards.get_title(loc="left") == "Rewards of 10 steps" and ends.get_title(loc="left") == "Ends"
    dream_plots.scatter_plot(np.array([1.0, 2.0]), np.array([3.0, 5.0]), "2 controllers", tmp_path)
    np.testing.assert_array_equal(figures[2].axes[0].collections[0].get_offsets(), [[1, 3], [2, 5]])
    scores = {f"{world}_{name}": value for world, mean in (("dream", 9.0), ("real", 5.0))
              for name, value in (("mean", mean), ("sd", 2.0), ("episodes", 4))}  # fmt: skip
    dream_plots.temperature_plot([{"temperature": 0.5, **scores}, {"temperature": 1.0, **scores}], tmp_path)
    bars = figures[3].axes[0]
    assert [bar.get_height() for bar in bars.patches] == [9.0, 9.0, 5.0, 5.0]  # type: ignore[attr-defined]
    assert [label.get_text() for label in bars.get_xticklabels()] == ["0.5", "1"]
    ((low, high), *_) = (line.get_segments()[0][:, 1] for line in bars.collections)  # type: ignore[attr-defined]
    assert (low, high) == pytest.approx((9.0 - 3.182446, 9.0 + 3.182446)), "Student's t for four episodes"


def test_a_single_step_ahead_is_drawn_as_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(dream_plots, "save_figure", lambda figure, out: figures.append(figure))
    one = np.array([0.5])
    dream_plots.open_loop_plot(OpenLoop(one, one, 1.0, one, one, 1.0, 3), tmp_path)
    assert all(line.get_marker() == "o" for axes in figures[0].axes for line in axes.lines[:2])


def test_dreams_alone_are_judged_by_the_way_from_random_to_the_agent() -> None:
    assert share_of_way(-358.0, -13.0, -358.0) == 0.0 and share_of_way(-13.0, -13.0, -358.0) == 1.0
    assert share_of_way(-100.0, 0.0, -200.0) == 0.5, "scores may be negative, and the agent's may be zero"
    text = dreaming_text(-358.0, -13.0, -703.0)
    assert "50% of the way from random (0%) to the agent (100%" in text and "27.5" not in text
    assert "-358.0" in text and "-13.0" in text and "-703.0" in text


@pytest.mark.parametrize("real", [-20.0, -30.0])
def test_an_agent_that_is_no_better_than_random_gives_no_share_but_a_difference(real: float) -> None:
    assert share_of_way(-25.0, real, -20.0) is None
    text = dreaming_text(-25.0, real, -20.0)
    assert f"{-25.0 - real:+.1f} relative to the agent" in text and "%" not in text
