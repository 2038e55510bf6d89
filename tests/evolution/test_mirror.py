"""The symmetry of worlds in which left and right are alike, in the search space of C."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from toy import Toy, toy_agent, toy_phase
from worldmodels.agent import Agent
from worldmodels.controller.layout import Layout
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.evolution.loop import Phase, evolve
from worldmodels.evolution.mirror import check_symmetry, mirror_map, mirrored_latents
from worldmodels.evolution.phases import Evolution
from worldmodels.evolution.subspace import mirror_space, recorded_inputs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.latents import Latents
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Mirror
from worldmodels.vision.base import Vision

STREAM = np.random.default_rng(7)
SIGNS = (-1, 1, 1)
TURNED, STAYING = 5, 7
"""Of the inputs of C in these tests, the first few change their sign in a mirror, and the others do not."""


class Sides(Vision):
    """A V whose z are the brightness of the left and of the right half of a frame."""

    def __init__(self) -> None:
        super().__init__(2)
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        halves = images.mean(dim=(1, 2)).unflatten(1, (2, 32)).mean(dim=2)
        return halves, torch.zeros_like(halves)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z.repeat_interleave(32, dim=1)[:, None, None, :].expand(-1, 3, 64, -1)

    objectives = held_out_loss = decode  # type: ignore[assignment]


def driver() -> Agent:
    torch.manual_seed(3)
    task = get_task("car-racing")
    return Agent(task, Sides(), MDNRNN(2, 3, 6, 2), torch.zeros(Layout(8, 3, 0).count), ("z", "h"))


def recording(episodes: int = 9) -> Latents:
    lengths = torch.from_numpy(STREAM.integers(60, 90, episodes))
    frames, steps = int((lengths + 1).sum()), int(lengths.sum())
    mu = torch.from_numpy(STREAM.uniform(0, 1, (frames, 2))).half()
    actions = torch.from_numpy(STREAM.uniform((-1, 0, 0), 1, (steps, 3))).float()
    ended = torch.zeros(episodes, dtype=torch.uint8)
    return Latents(mu, mu, actions, torch.zeros(steps), ended, lengths)


def sample(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of C, and what they become in a mirror."""
    turn = np.r_[-np.ones(TURNED), np.ones(STAYING)]
    plain = STREAM.standard_normal((count, TURNED + STAYING)) * np.linspace(0.5, 2, TURNED + STAYING) + 3 * (turn > 0)
    return plain, plain * turn


def test_each_control_is_moved_only_by_what_a_mirror_treats_like_it() -> None:
    plain, mirrored = sample()
    mixture = np.linalg.qr(STREAM.standard_normal((TURNED + STAYING,) * 2))[0]
    start = np.zeros(Layout(TURNED + STAYING, 3, 0).count)
    space = mirror_space(start, SIGNS, plain @ mixture, mirrored @ mixture, 4)
    assert space.size == 3 + 3 * 4
    points = STREAM.standard_normal((20, space.size))
    points[:, :3] = 0
    weights = space.controllers(points)[:, 3:].reshape(20, -1, 3)
    assert np.abs(weights).max() > 0.1
    steering, gas, brake = np.moveaxis(np.einsum("pf,nfc->npc", mixture, weights), 2, 0)
    assert np.abs(steering[:, TURNED:]).max() < 1e-9
    assert np.abs(gas[:, :TURNED]).max() < 1e-9 and np.abs(brake[:, :TURNED]).max() < 1e-9


def test_in_the_mirror_such_a_controller_steers_to_the_other_side_and_drives_as_fast() -> None:
    plain, mirrored = sample()
    space = mirror_space(np.zeros(Layout(TURNED + STAYING, 3, 0).count), SIGNS, plain, mirrored, 5)
    point = STREAM.standard_normal(space.size)
    point[:3] = 0, 0.3, -0.2
    parameters = space.controllers(point[None])[0]
    bias, weights = parameters[:3], parameters[3:].reshape(-1, 3)
    here, there = plain @ weights + bias, mirrored @ weights + bias
    np.testing.assert_allclose(there, here * SIGNS, atol=1e-9)


def test_a_step_changes_controls_as_much_as_in_the_whole_space() -> None:
    plain, mirrored = sample(4000)
    space = mirror_space(np.zeros(Layout(TURNED + STAYING, 3, 0).count), SIGNS, plain, mirrored, 3)
    points = STREAM.standard_normal((4000, space.size))
    points[:, :3] = 0
    weights = space.controllers(points)[:, 3:].reshape(4000, -1, 3)
    both = np.concatenate([plain, mirrored])
    variances = np.einsum("nfc,fg,ngc->nc", weights, np.cov(both, rowvar=False), weights).mean(axis=0)
    np.testing.assert_allclose(variances, both.var(axis=0).sum(), rtol=0.06)


def test_episodes_in_a_mirror_show_the_other_side_and_are_steered_there() -> None:
    agent, latents = driver(), recording()
    mirrored = mirrored_latents(agent, latents)
    np.testing.assert_allclose(mirrored.mu.float(), latents.mu.float().flip(1), atol=0.01)
    assert torch.equal(mirrored.actions, latents.actions * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.equal(mirrored.lengths, latents.lengths)


def test_the_map_tells_what_the_inputs_of_c_become_in_a_mirror(capsys: pytest.CaptureFixture[str]) -> None:
    agent, latents = driver(), recording(40)
    found = mirror_map(agent, latents)
    others = recording()
    here = torch.from_numpy(recorded_inputs(agent, others)).double()
    there = torch.from_numpy(recorded_inputs(agent, mirrored_latents(agent, others))).double()
    missed = (found(here) - there).square().sum(dim=0) / (there - there.mean(dim=0)).square().sum(dim=0)
    assert missed[:2].max() < 1e-3, "z of the two sides are exchanged"
    assert "in a mirror, C's inputs follow from C's inputs with R2 0." in capsys.readouterr().err


def symmetric_agent() -> Agent:
    agent = toy_agent()
    agent.task.mirror = Mirror((1, -1), (1, -1))
    return agent


def symmetric_phase(toy: Toy) -> Phase:
    seen = np.random.default_rng(5).standard_normal((60, 1))
    return replace(toy_phase(toy, inputs=lambda: seen), mirror=lambda inputs: -0.5 * inputs)


def test_an_evolution_with_symmetry_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole, _ = evolve(symmetric_agent(), symmetric_phase(Toy()), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evolve(symmetric_agent(), symmetric_phase(Toy(dies_at=5)), tmp_path / "killed")
    assert load_tensors(tmp_path / "killed" / "evolution.safetensors")[0]["basis"].ndim == 3
    again, _ = evolve(symmetric_agent(), symmetric_phase(Toy()), tmp_path / "killed")
    assert torch.equal(whole, again)


def test_all_phases_and_starts_of_an_evolution_share_one_map(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, asked = driver(), []
    monkeypatch.setattr(
        "worldmodels.evolution.phases.mirror_map", lambda *_: asked.append(1) or (lambda inputs: inputs * 2)
    )
    config = EvolutionConfig(symmetry="mirror", components=3)
    evolution = Evolution(agent, config, cast(Any, None), LocalExecutor(), 1, recording())
    for start in (0, 1):
        phase = evolution.phase(0, "real", config.phases["real"], start)
        assert phase.mirror is not None and phase.mirror(np.ones((2, 8))).tolist() == [[2.0] * 8] * 2
    assert asked == [1]


@pytest.mark.parametrize("symmetry, hidden", [("none", 0), ("mirror", 4)])
def test_without_symmetry_and_with_a_hidden_layer_the_search_knows_no_mirror(symmetry: str, hidden: int) -> None:
    agent = driver()
    agent.layout = Layout(8, 3, hidden)
    config = EvolutionConfig(symmetry=symmetry)
    evolution = Evolution(agent, config, cast(Any, None), LocalExecutor(), 1, recording())
    assert evolution.phase(0, "real", config.phases["real"]).mirror is None


@pytest.mark.parametrize("name", ["car-racing", "car-racing-published", "take-cover", "take-cover-published"])
def test_the_signs_of_a_task_say_what_its_controls_and_actions_become_in_a_mirror(name: str) -> None:
    task = get_task(name)
    assert task.mirror is not None
    controls = STREAM.uniform(-1, 1, (200, task.control_size))
    turned = controls * np.array(task.mirror.controls)
    here, there = (task.memory_action(task.env_action(one)) for one in (controls, turned))
    np.testing.assert_allclose(there, here * np.array(task.mirror.actions), atol=1e-6)


def test_a_mirror_is_refused_where_there_is_none_and_without_components() -> None:
    check_symmetry(EvolutionConfig(), get_task("bin-packing"))
    check_symmetry(EvolutionConfig(symmetry="mirror"), get_task("car-racing"))
    with pytest.raises(UserError, match=r"left and right are alike, and bin-packing is not known"):
        check_symmetry(EvolutionConfig(symmetry="mirror"), get_task("bin-packing"))
    with pytest.raises(UserError, match=r"components 0 asks for none; use --evolution.symmetry none"):
        check_symmetry(EvolutionConfig(symmetry="mirror", components=0), get_task("car-racing"))
