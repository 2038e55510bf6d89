"""Sampled episodes: frame, action, reward, z and h of a step belong together, whatever was interrupted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cases
from toy import Glance
from worldmodels.agent import Agent, untrained_agent
from worldmodels.core.errors import UserError
from worldmodels.data.exchange import sample
from worldmodels.data.exchange.sample import sample_episodes
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.mdnrnn import MDNRNN
from worlds import MAX_STEPS, Scripted, length_of


@pytest.fixture(autouse=True)
def small_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted world shows its seed in a byte."""
    monkeypatch.setattr(sample, "episode_seeds", lambda purpose, seed, count: [10 * seed + one for one in range(count)])


def playing_agent(seed: int = 0) -> Agent:
    torch.manual_seed(seed)
    agent = untrained_agent(Scripted(), Glance(), MDNRNN(4, 2, 8, 2), ("z", "h"))
    agent.controller = torch.randn(len(agent.controller))
    return agent


def files(folder: Path) -> list[dict[str, np.ndarray]]:
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as archive:
            found.append({name: archive[name] for name in archive.files})
    return found


def test_what_a_file_holds_is_what_the_agent_saw_thought_and_did(tmp_path: Path) -> None:
    agent = playing_agent()
    assert sample_episodes(LocalExecutor(), agent, tmp_path, 3) == 3
    weights = agent.controller[2:].reshape(12, 2)
    for one in files(tmp_path):
        steps = len(one["action"])
        assert steps == min(MAX_STEPS, length_of(int(one["seed"]))) and one["obs"].shape == (steps + 1, 64, 64, 3)
        assert one["reward"].shape == one["done"].shape == (steps,)
        assert one["z"].shape == (steps, 4) and one["h"].shape == (steps, 8)
        h, c = agent.memory.initial_state(1)
        for step in range(steps):
            with torch.no_grad():
                z, _ = agent.encode(one["obs"][step : step + 1])
                np.testing.assert_allclose(one["z"][step], z[0].numpy(), atol=1e-5)
                np.testing.assert_allclose(one["h"][step], h[0].numpy(), atol=1e-5)
                control = torch.tanh(torch.cat([z, h], 1) @ weights + agent.controller[:2])
                np.testing.assert_allclose(one["action"][step], control[0].numpy(), atol=1e-5)
                h, c = agent.memory.step(z, torch.from_numpy(one["action"][step : step + 1]), (h, c))


def test_a_sample_that_was_stopped_continues_and_can_grow(tmp_path: Path) -> None:
    agent, whole, parts = playing_agent(), tmp_path / "whole", tmp_path / "parts"
    sample_episodes(LocalExecutor(), agent, whole, 10, steps=4)
    assert sample_episodes(LocalExecutor(), agent, parts, 3, steps=4) == 3
    cases.truncate(parts / "episode-000001.npz")
    (parts / "episode-000002.npz").unlink()
    assert sample_episodes(LocalExecutor(), agent, parts, 10, steps=4) == 10
    assert sample_episodes(LocalExecutor(), agent, parts, 10, steps=4) == 0
    for mine, theirs in zip(files(parts), files(whole), strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


def test_another_agent_or_seed_does_not_mix_with_what_is_there(tmp_path: Path) -> None:
    sample_episodes(LocalExecutor(), playing_agent(), tmp_path / "out", 1, steps=2)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("seed", {"seed": 2}),
        ("steps", {"steps": 3}),
        ("backend", {"backend": "fast"}),
    ]
    for word, change in changes:
        with pytest.raises(UserError, match=f"holds episodes of another {word}"):
            sample_episodes(LocalExecutor(), playing_agent(), tmp_path / "out", 1, **{"steps": 2, **change})
    with pytest.raises(UserError, match="holds episodes of another agent"):
        sample_episodes(LocalExecutor(), playing_agent(1), tmp_path / "out", 1, steps=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("keep")
    with pytest.raises(UserError, match="is not an empty folder"):
        sample_episodes(LocalExecutor(), playing_agent(), tmp_path / "mine", 1)
    assert sample._TOGETHER > 1
