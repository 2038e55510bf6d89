"""Hits in the report on dreams: how well M foretells them, against counts by hand, and what the report says of it."""

import contextlib
import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dream_agents import dreamer
from worldmodels.agent import Agent
from worldmodels.analysis.config import DreamReportConfig
from worldmodels.analysis.dream_report import DreamReport, print_report
from worldmodels.analysis.fidelity import encode_episode, prediction_scores
from worldmodels.analysis.statistics import area_under_curve, share_in_top
from worldmodels.core.files import read_json, write_json
from worldmodels.data.episodes import Episode
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.execution.executor import make_executor
from worldmodels.memory.mdnrnn import MDNRNN

CORRELATION = {
    "summary": {"controllers": 2, "pearson": 1.0, "spearman": 1.0},
    "dream_means": [1.0, 2.0],
    "real_means": [2.0, 3.0],
}
"""The part of the report that is not tested here."""


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Episode]:
    """The games of the report, instead of real ones."""
    games = [doom_episode(seed) for seed in range(3)]
    monkeypatch.setattr("worldmodels.analysis.dream_report.record_episodes", lambda *given: games[: len(given[4])])
    monkeypatch.setattr(DreamReport, "_correlation", lambda self: CORRELATION)
    return games


def measured(agent: Agent, folder: Path) -> dict[str, Any]:
    """The report of an agent without evolutions."""
    config = DreamReportConfig(episodes=3, horizon=6, starts=2, generations=0, steps=60)
    with contextlib.closing(make_executor("local")) as executor:
        return DreamReport(agent, config, 1, folder, EvolutionConfig(), DreamConfig(), executor).run()


def told_by_hand(logits: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """The area under the ROC curve and the share of hits in the top 5%, in float64 and step by step."""
    order = [(float(logit), bool(hit)) for logit, hit in zip(logits.astype(np.float64), hits, strict=True)]
    pairs = [(a > b) + 0.5 * (a == b) for a, hit in order if hit for b, other in order if not other]
    left, found = 0.05 * len(order), 0.0
    for value in sorted({logit for logit, _ in order}, reverse=True):
        same = [hit for logit, hit in order if logit == value]
        part = min(1.0, left / len(same))
        found += part * sum(same)
        left -= part * len(same)
    return float(np.mean(pairs)), found / int(hits.sum())


@pytest.mark.parametrize("levels", [3, 10, 10**6])
@pytest.mark.parametrize("count", [7, 40, 333])
def test_the_share_in_the_top_is_counted_as_by_hand_also_among_equal_scores(levels: int, count: int) -> None:
    rng = np.random.default_rng(levels + count)
    scores, truth = rng.integers(0, levels, count).astype(float), rng.random(count) < 0.2
    truth[0] = True
    area, share = told_by_hand(scores, truth)
    assert area_under_curve(scores, truth) == pytest.approx(area) and 0 <= share <= 1
    assert share_in_top(scores, truth, 0.05) == pytest.approx(share)


def test_the_best_and_the_worst_forecast_have_all_and_none_of_the_hits_in_the_top() -> None:
    truth = np.arange(100) >= 96
    assert share_in_top(np.arange(100.0), truth, 0.05) == 1.0 and share_in_top(-np.arange(100.0), truth, 0.05) == 0.0
    assert share_in_top(np.zeros(100), truth, 0.05) == pytest.approx(0.05), "who knows nothing has what chance has"
    assert share_in_top(np.arange(100.0), np.arange(100) >= 50, 0.05) == pytest.approx(0.1), "5 of 50"
    assert np.isnan(share_in_top(np.arange(4.0), np.zeros(4, bool), 0.05))


def doom_episode(seed: int, steps: int = 60, known: bool = True) -> Episode:
    """A game that loses health now and then, and whose health is not known for some frames."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (steps + 1, 64, 64, 3), dtype=np.uint8)
    health = 100 - np.cumsum(rng.random(steps + 1) < 0.15).astype(np.float32)
    health[20:24] = np.nan
    actions, rewards = rng.random((steps, 1), dtype=np.float32), np.ones(steps, np.float32)
    return Episode(frames, actions, rewards, False, seed, "process", health if known else None)


def foreteller(hit: bool = True) -> Agent:
    agent = dreamer("take-cover")
    torch.manual_seed(3)
    agent.memory = MDNRNN(6, 1, 16, 3, end=True, hit=hit).eval()
    return agent


def test_hits_are_foretold_as_well_as_float64_counts_it() -> None:
    agent, games = foreteller(), [doom_episode(1), doom_episode(2, 45), doom_episode(3, known=False)]
    encoded = [encode_episode(agent, game) for game in games]
    found = prediction_scores(agent, encoded)
    logits, hits = [], []
    head = agent.memory.hit_head
    assert head is not None
    for one in encoded[:2]:
        health = one.episode.health
        assert health is not None
        for step in range(len(one.episode.actions)):
            before, after = float(health[step]), float(health[step + 1])
            if np.isnan(before) or np.isnan(after):
                continue
            # The state after step t, in which z and action t are known, foretells what the health does in it.
            weighted = one.h[step + 1].double() @ head.weight.detach()[0].double() + head.bias.detach().double()
            logits.append(float(weighted))
            hits.append(after < before)
    area, share = told_by_hand(np.array(logits), np.array(hits))
    assert found.hits == sum(hits) > 5 and len(hits) == 60 + 45 - 2 * 5
    assert found.hit_auc == pytest.approx(area, abs=1e-6) and found.hit_top_share == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("agent", [foreteller(hit=False), foreteller()], ids=["no head", "no health"])
def test_without_a_hit_head_or_without_a_health_nothing_is_said_of_hits(agent: Agent) -> None:
    found = prediction_scores(agent, [encode_episode(agent, doom_episode(1, known=agent.memory.hit_head is None))])
    assert np.isnan(found.hit_auc) and np.isnan(found.hit_top_share) and found.hits == 0


def test_the_report_says_how_well_hits_are_foretold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recorded: list[Episode]
) -> None:
    agent = foreteller()
    report = measured(agent, tmp_path)
    told = report["prediction"]
    wanted = prediction_scores(agent, [encode_episode(agent, game) for game in recorded])
    assert (told["hit_auc"], told["hit_top_share"], told["hits"]) == (wanted.hit_auc, wanted.hit_top_share, wanted.hits)
    (row,) = csv.DictReader((tmp_path / "prediction.csv").open())
    assert float(row["hit_auc"]) == pytest.approx(wanted.hit_auc) and row["hits"] == str(wanted.hits)
    assert measured(agent, tmp_path) == report, "read back"
    capsys.readouterr()
    print_report(report, tmp_path)
    line = f"hits: AUC {wanted.hit_auc:.3f}, {wanted.hit_top_share:.0%} of {wanted.hits} are among the 5% of steps"
    assert line in capsys.readouterr().err
    report["prediction"] |= {"hit_auc": None, "hit_top_share": None, "hits": 0}
    print_report(report, tmp_path)
    assert "hits" not in capsys.readouterr().err


def test_a_report_that_was_measured_before_hits_were_is_still_valid_unless_m_foretells_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recorded: list[Episode]
) -> None:
    for hit, again in ((False, ""), (True, "measuring prediction")):
        folder = tmp_path / str(hit)
        measured(foreteller(hit), folder)
        path = folder / "parts" / "prediction.json"
        part = read_json(path, checksum=True)
        part["identity"].pop("hits", None)
        for name in ("hit_auc", "hit_top_share", "hits"):
            del part["result"]["summary"][name]
        for name in ("hit_logit", "hit"):
            del part["result"]["predictions"][name]
        write_json(path, part, checksum=True)
        capsys.readouterr()
        report = measured(foreteller(hit), folder)
        assert [line for line in capsys.readouterr().err.splitlines() if "measuring" in line] == (
            [again] if again else []
        )
        print_report(report, folder)
