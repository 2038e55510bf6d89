"""What ``import worldmodels`` offers: complete, lazy, and with the checks of the command line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import worldmodels
from worldmodels.cli.runs import run_options
from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode, EpisodeStore
from worldmodels.memory.latents import Latents


def test_every_public_name_is_listed_exists_and_is_explained() -> None:
    assert set(worldmodels.__all__) <= set(dir(worldmodels))
    for name in worldmodels.__all__:
        assert name == "__version__" or getattr(worldmodels, name).__doc__, name
    for name in ("train", "evaluate", "open_run", "runs", "agents"):
        assert "Example: " in getattr(worldmodels, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'trian'; it offers Agent, Config"):
        worldmodels.trian  # noqa: B018


def test_settings_presets_and_lists_of_runs_do_not_import_torch(tmp_path: Path) -> None:
    code = f"import sys, worldmodels; print(worldmodels.runs({str(tmp_path)!r}), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[] False\n", done.stderr


def test_settings_have_the_names_and_checks_of_the_command_line() -> None:
    words = ["--preset", "quick", "--seed", "4", "--memory.hidden-size", "12", "--phases", "dream", "real-after-dream"]
    options = run_options("train", [*words, "--evolution.phases.real-after-dream.sigma", "0.2"], "Train.")
    settings = {"memory.hidden-size": 12, "evolution.phases.real-after-dream.sigma": 0.2}
    config = worldmodels.preset("quick", seed=4, phases=("dream", "real-after-dream"), **settings)
    assert config == options.config()
    assert config.with_settings(policy="random").collect.policy == "random"
    for wrong, message in (
        ({"memory.stepz": 1}, "there is no setting memory.stepz; did you mean 'steps'"),
        ({"memory.steps": "ten"}, "--memory.steps must be a whole number, got 'ten'"),
        ({"vision.lr": 0}, "--vision.lr must be positive, got 0"),
        ({"memory": 3}, "--memory must be a table"),
    ):
        with pytest.raises(UserError, match=message):
            config.with_settings(**wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"collect.backend": "bullet"}, "unknown backend 'bullet'"),
        ({"policy": "best"}, "best"),
        ({"evolution.sequence": ("sleep",)}, "--evolution.sequence must name phases"),
    ],
)
def test_training_refuses_what_the_command_line_refuses_and_leaves_nothing(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        worldmodels.train(worldmodels.preset("quick", **settings), tmp_path / "run")
    with pytest.raises(UserError, match="expected a Config, such as"):
        worldmodels.train("quick", tmp_path / "run")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_score_from_python_is_that_of_the_command_line(tmp_path: Path) -> None:
    from worldmodels.cli.main import main
    from worldmodels.core.files import read_json

    words = ["--episodes", "3", "--seed", "5", "--steps", "20", "--json", str(tmp_path / "score.json")]
    assert main(["evaluate", "bin-packing", *words]) == 0
    score = worldmodels.evaluate("bin-packing", episodes=3, seed=5, steps=20)
    assert score["returns"] == read_json(tmp_path / "score.json")["returns"]
    with pytest.raises(UserError, match="expected at least 1 episode"):
        worldmodels.evaluate("bin-packing", episodes=0)


def test_the_shipped_agents_are_described_without_loading_them() -> None:
    found = {agent.name: agent for agent in worldmodels.agents()}
    assert {"car-racing", "take-cover", "bin-packing", "car-racing-dream"} <= set(found)
    for name, shipped in found.items():
        agent = worldmodels.load_agent(name)
        sizes = agent.vision.latent_size, agent.memory.hidden_size
        assert (shipped.task, shipped.inputs) == (agent.task.name, agent.inputs.names)
        assert (shipped.latent_size, shipped.hidden_size) == sizes and shipped.info == agent.info


def test_what_is_printed_of_data_is_one_short_line(tmp_path: Path) -> None:
    frames, actions = np.zeros((4, 64, 64, 3), np.uint8), np.zeros((3, 2), np.float32)
    episode = Episode(frames, actions, np.array([1, 2, 0.5], np.float32), True, 7, "fast")
    assert repr(episode) == "Episode(3 steps, return 3.5, ended by the world, seed=7, 'fast')"
    store = EpisodeStore(tmp_path)
    store.write(0, [episode, episode])
    (shard,) = store.shards()
    assert repr(shard) == f"Shard({str(store.shard_path(0))!r}, 2 episodes, 8 frames)"
    assert np.array_equal(shard.episode(1).rewards, episode.rewards) and len(shard.episode(1).frames) == 4
    lengths = torch.tensor([3, 3])
    latents = Latents(*(torch.zeros(8, 5), torch.zeros(8, 5), torch.zeros(6, 2), torch.zeros(6), lengths, lengths))
    assert repr(latents) == "Latents(2 episodes, 8 frames, latent_size=5)"
    assert repr(worldmodels.preset("quick")).startswith("Config(task='car-racing', preset='quick', seed=1, rounds=1,")
