"""--dropout of the verb dream: what it changes, the note for an M without dropout, and what agents remember of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cases
from dream_agents import dreamer
from worldmodels.agent import AGENT_FILE, load_agent
from worldmodels.analysis import dream_report
from worldmodels.core.files import load_tensors
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.dropout_info import dropout_info
from worldmodels.play import window
from worldmodels.render import dream_video
from worldmodels.run.model_card import model_card

NOTE = "note: this agent's M was trained without memory.dropout"
Capture = pytest.CaptureFixture[str]


def saved(folder: Path, **rates: float) -> Path:
    agent = dreamer(end_bias=-20.0)
    agent.info = dropout_info(rates.get("memory", 0.0), rates.get("dream", 0.0))
    agent.save(folder)
    return folder


def test_films_of_dreams_have_the_dropout_that_is_asked_for(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, results = saved(tmp_path / "agent", memory=0.2), []
    record = dream_video.record_dream

    def kept(*given: Any, **more: Any) -> Any:
        results.append(record(*given, **more))
        return results[-1]

    monkeypatch.setattr(dream_video, "record_dream", kept)
    for rate in ([], ["--dropout", "0.0"], ["--dropout", "0.4"]):
        words = ["dream", "record", "car-racing", "--agent", agent, "--out", tmp_path / "film.gif", "--steps", "5"]
        done = cases.call(capsys, *words, *rate)
        assert done.code == 0 and NOTE not in done.err, done.err
    plain, none, masked = results
    assert plain == none and (plain["dropout"], masked["dropout"]) == (0.0, 0.4)
    assert masked["dream_score"] != plain["dream_score"]


def test_dreams_are_played_with_it(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(window, "play_dream", lambda *given, **more: asked.append((given[3], more)))
    agent = saved(tmp_path)
    for words in ([], ["--dropout", "0.25", "--temperature", "0.5"]):
        assert cases.call(capsys, "dream", "play", "--agent", agent, *words).code == 0
    assert asked == [(1.0, {"dropout": 0.0}), (0.5, {"dropout": 0.25})]


def test_the_report_measures_dreams_with_it(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[DreamConfig] = []

    class Report(dream_report.DreamReport):
        def run(self) -> dict[str, Any]:
            used.append(self.dream)
            return {}

    monkeypatch.setattr(dream_report, "DreamReport", Report)
    monkeypatch.setattr(dream_report, "print_report", lambda report, folder: None)
    agent = saved(tmp_path)
    for words in ([], ["--dropout", "0.25"]):
        assert cases.call(capsys, "dream", "report", "car-racing", "--agent", agent, *words).code == 0
    assert used[1] == replace(used[0], dropout=0.25) and used[0].dropout == 0.0


def test_an_m_that_was_trained_without_dropout_is_noted_in_one_line_and_dreams_all_the_same(
    tmp_path: Path, capsys: Capture
) -> None:
    words = [
        "dream",
        "record",
        "car-racing",
        "--agent",
        saved(tmp_path),
        "--out",
        tmp_path / "film.gif",
        "--steps",
        "2",
    ]
    for rate, notes in (("0.4", 1), ("0", 0)):
        done = cases.call(capsys, *words, "--dropout", rate)
        assert done.code == 0 and sum(NOTE in line for line in done.err.splitlines()) == notes


@pytest.mark.parametrize("rate", ["-0.1", "0.95", "nan", "much"])
def test_an_impossible_dropout_is_refused_in_one_line(rate: str, tmp_path: Path, capsys: Capture) -> None:
    cases.refused(cases.call(capsys, "dream", "record", "--agent", saved(tmp_path), f"--dropout={rate}"), "dropout")


def test_what_an_agents_file_says_of_dropout_may_be_anything(tmp_path: Path, capsys: Capture) -> None:
    agent = dreamer(end_bias=-20.0)
    agent.info = {"memory_dropout": ["much"]}
    agent.save(tmp_path)
    words = ["dream", "record", "--agent", tmp_path, "--out", tmp_path / "film.gif", "--steps", "2", "--dropout", "0.4"]
    done = cases.call(capsys, *words)
    assert done.code == 0 and NOTE in done.err


def test_a_run_writes_into_its_agent_with_which_dropout_it_was_trained(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    rates = ["--rounds", "1", "--memory.dropout", "0.2", "--dream.dropout", "0.1"]
    words = [*cases.tiny("dream"), "--phases", "dream", "--executor", "local", "--device", "cpu", *rates]
    done = cases.call(capsys, "train", "car-racing", "--preset", "dream", "--run", run, *words)
    assert done.code == 0, done.err
    agent = load_agent(run)
    assert (agent.info["memory_dropout"], agent.info["dream_dropout"]) == (0.2, 0.1)
    card = model_card(agent, "me/agent", None, "mit")
    assert "| memory dropout | 0.2 |" in card and "| dream dropout | 0.1 |" in card
    done = cases.call(
        capsys, "dream", "record", "--agent", run, "--out", tmp_path / "film.gif", "--steps", "2", "--dropout", "0.1"
    )
    assert done.code == 0 and NOTE not in done.err


def test_agents_without_dropout_have_files_as_before(tmp_path: Path) -> None:
    saved(tmp_path)
    assert load_tensors(tmp_path / AGENT_FILE)[1]["info"] == {}
