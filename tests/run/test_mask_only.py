"""The ablation in which C sees nothing: its biases are evolved, and the mask of what is allowed does the rest."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cases import tiny
from toy import toy_phase
from worldmodels.agent import Agent, load_agent
from worldmodels.cli.main import main
from worldmodels.controller.linear import LinearControllers, parameter_count
from worldmodels.evaluation import evaluate
from worldmodels.evolution.loop import evolve
from worldmodels.evolution.subspace import whole_space
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.rollouts import rollout
from worldmodels.tasks import get_task
from worldmodels.tasks.bin_packing.task import BinPacking
from worldmodels.vision.conv_vae import ConvVAE
from worlds import Scripted


def blind_agent(controller: torch.Tensor) -> Agent:
    task = get_task("bin-packing")
    return Agent(task, ConvVAE(4), MDNRNN(4, 30, 8, 2, True, False), controller, inputs=())


def test_without_inputs_a_controller_is_its_biases() -> None:
    assert parameter_count(0, 3) == 3
    for parameters in (torch.randn(1, 3), torch.randn(4, 3)):
        found = LinearControllers(parameters, 0, 3)(torch.zeros(4, 0))
        torch.testing.assert_close(found, torch.tanh(parameters).expand(4, 3))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(
        LinearControllers(parameters, 0, 3)(torch.zeros(2, 0), rows), torch.tanh(parameters[rows])
    )


def test_the_space_in_which_biases_are_evolved_is_themselves() -> None:
    space, points = whole_space(np.arange(3.0), 3), np.random.default_rng(1).standard_normal((5, 3))
    assert space.size == 3
    np.testing.assert_allclose(space.controllers(points), np.arange(3.0) + points)


def test_an_evolution_of_biases_alone_is_saved_and_continued(tmp_path: Path) -> None:
    agent = Agent(Scripted(), ConvVAE(4), MDNRNN(4, 2, 8, 2, True, True), torch.zeros(2), inputs=())

    def fitness(
        controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        assert controllers.shape[1] == 2
        return np.repeat(-((controllers - 1) ** 2).sum(axis=1, keepdims=True), len(seeds), axis=1), 1

    wanted, _ = evolve(agent, toy_phase(fitness, generations=30), tmp_path / "whole")
    evolve(agent, toy_phase(fitness, generations=11), tmp_path / "parts")
    found, _ = evolve(agent, toy_phase(fitness, generations=30), tmp_path / "parts")
    assert torch.equal(found, wanted) and (wanted > 0.8).all()


def test_it_needs_neither_v_nor_m_and_biases_for_fuller_bins_are_best_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = blind_agent(torch.linspace(-1, 1, 30))
    monkeypatch.setattr(Agent, "encode", None)
    monkeypatch.setattr(MDNRNN, "step", None)
    seeds = list(range(100, 110))
    world, rule = agent.task.rule("best-fit")
    found = rollout(agent.task, make_envs(agent.task, 10, "native"), agent.policy(10), seeds, 300).returns
    assert found.tolist() == evaluate(LocalExecutor(), world, rule, "native", seeds, 10, 300).returns.tolist()


def test_such_an_agent_is_saved_and_loaded(tmp_path: Path) -> None:
    agent = blind_agent(torch.linspace(-1, 1, 30))
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert loaded.inputs.names == () and torch.equal(loaded.controller, agent.controller)


def test_ablating_a_masked_world_evolves_and_scores_the_mask_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(BinPacking, "max_steps", 20)
    less = [*tiny("real", "dream"), "--collect.num-envs", "4", "--device", "cpu"]
    where = ["bin-packing", "--preset", "quick", "--run", str(tmp_path), *less]
    chosen = ["--variants", "mask-only", "dream-only"]
    assert main(["train", *where]) == 0
    assert main(["ablate", *where, *chosen]) == 0
    rows = json.loads((tmp_path / "ablation.json").read_bytes())
    assert list(rows) == ["full", "mask-only", "dream-only", "random"]
    assert len({tuple(row["seeds"]) for row in rows.values()}) == 1
    evolved = load_agent(tmp_path / "round-1" / "controller-mask-only")
    assert evolved.inputs.names == () and evolved.controller.shape == (30,) and evolved.controller.any()
    said = capsys.readouterr()
    assert "mask-only" in said.out and "evolved in dreams alone, C " in said.err
    assert "share_of_way_from_random_to_full" in rows["dream-only"]
    assert all({"steps", "cut_short", "made_with"} <= row.keys() for row in rows.values())
    # Done is done: nothing is evolved or scored again.
    monkeypatch.setattr("worldmodels.evolution.phases.evolve", None)
    monkeypatch.setattr("worldmodels.run.pipeline.evaluate", None)
    assert main(["ablate", *where, *chosen]) == 0
