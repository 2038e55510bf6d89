"""import, export and sample on the command line: from an agent to files, and from files to a run."""

import re
from pathlib import Path

import numpy as np
import pytest

import cases
import published
from worldmodels.agent import load_agent
from worldmodels.cli import main as cli
from worldmodels.run.reader import RunReader


def test_what_an_agent_recorded_can_be_the_episodes_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played, run = tmp_path / "played", tmp_path / "run"
    words = ["sample", "--agent", "bin-packing", "--episodes", "2", "--steps", "4", "--out", played]
    outcome = cases.call(capsys, *words)
    assert outcome.code == 0, outcome.err
    outcome = cases.call(
        capsys,
        "import",
        "episodes",
        played,
        "--task",
        "bin-packing",
        "--preset",
        "quick",
        "--run",
        run,
        "--executor",
        "local",
    )
    assert outcome.code == 0, outcome.err
    episodes = list(RunReader(run).episodes())
    assert len(episodes) == 2 and RunReader(run).config.collect.missing == ()
    for index, episode in enumerate(episodes):
        with np.load(played / f"episode-{index:06d}.npz", allow_pickle=False) as file:
            assert np.array_equal(file["obs"], episode.frames) and np.array_equal(file["action"], episode.actions)
            assert np.array_equal(file["reward"], episode.rewards) and len(file["z"]) == len(file["h"]) == 4


def test_published_weights_become_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published.random_files(tmp_path / "files")
    outcome = cases.call(capsys, "import", "weights", tmp_path / "files", "--out", tmp_path / "agent")
    assert outcome.code == 0 and "next: worldmodels evaluate car-racing-published --agent" in outcome.err
    agent = load_agent(tmp_path / "agent")
    assert agent.samples_z and agent.info["files"] == [
        "vae.json",
        "rnn.json",
        "initial_z.json",
        "carracing.cma.16.64.best.json",
    ]
    for words in ([], ["--out", tmp_path / "a", "--run", tmp_path / "b"]):
        refused = cases.call(capsys, "import", "weights", tmp_path / "files", *words)
        cases.refused(refused, "expected --out AGENT for an agent, or --run RUN for the V of a run")


@pytest.mark.parametrize(
    ("verb", "words"), [("import", ["episodes", "weights"]), ("export", ["episodes", "latents", "onnx"])]
)
def test_help_lists_what_can_be_exchanged_and_help_all_every_option(
    verb: str, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stop:
            cli.main([verb, flag])
        text = capsys.readouterr().out
        assert not stop.value.code and re.findall(r"^  (\w+) {2,}\w", text, re.M)[: len(words)] == words
        assert ("--out" in text) == (flag == "--help-all")
