"""Evolving a C with a hidden layer: its search space, where it starts, and how it goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from dream_agents import dreamer
from toy import toy_phase, without_speed
from worldmodels.agent import Agent
from worldmodels.controller.hidden import HiddenLayerControllers
from worldmodels.controller.inputs import PolicyInputs
from worldmodels.controller.layout import Layout
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.evolution.loop import evolve
from worldmodels.evolution.subspace import component_space, whole_space, with_random_features
from worlds import Scripted

INPUTS, CONTROLS, HIDDEN = 12, 2, 6
LAYOUT = Layout(INPUTS, CONTROLS, HIDDEN)
STREAM = np.random.default_rng(5)
SEEN = STREAM.standard_normal((500, INPUTS)) @ STREAM.standard_normal((INPUTS, INPUTS)) + 7.0
START = STREAM.standard_normal(LAYOUT.count)
NOTHING = np.zeros(LAYOUT.count)


def controls(parameters: np.ndarray, inputs: np.ndarray, layout: Layout = LAYOUT) -> np.ndarray:
    """Controls (n, C) of one controller, in float64, through the code that acts."""
    return HiddenLayerControllers(torch.from_numpy(parameters[None]), layout)(torch.from_numpy(inputs)).numpy()


# --- the search space ----------------------------------------------------------------------------------------


def test_the_zero_point_is_the_controller_that_evolution_starts_from() -> None:
    spaces = whole_space(START, CONTROLS, HIDDEN), component_space(START, CONTROLS, SEEN, 5, slice(0), HIDDEN)
    for space in spaces:
        np.testing.assert_array_equal(space.controllers(np.zeros((1, space.size)))[0], START)
    assert spaces[0].size == len(START) == LAYOUT.count
    assert spaces[1].size == Layout(5, CONTROLS, HIDDEN).count


def test_in_the_whole_space_a_point_is_what_is_added_to_the_start() -> None:
    points = STREAM.standard_normal((4, LAYOUT.count))
    np.testing.assert_allclose(whole_space(START, CONTROLS, HIDDEN).controllers(points), START + points, rtol=1e-12)


def test_a_point_is_a_controller_of_the_centred_components() -> None:
    """The components are those of the first layer; the coordinates of the output layer are its weights."""
    space = component_space(NOTHING, CONTROLS, SEEN, 5, slice(0), HIDDEN)
    point = 0.1 * STREAM.standard_normal(space.size)
    projected = (SEEN - SEEN.mean(axis=0)) @ space.basis
    wanted = controls(point, projected, Layout(5, CONTROLS, HIDDEN))
    np.testing.assert_allclose(controls(space.controllers(point[None])[0], SEEN), wanted, rtol=1e-6, atol=1e-9)


def test_a_linear_controller_has_no_coordinates_after_its_components() -> None:
    space = component_space(np.zeros(CONTROLS * (INPUTS + 1)), CONTROLS, SEEN, 5)
    assert space.size == CONTROLS * 6 and space.controllers(np.ones((3, space.size))).shape == (3, CONTROLS * 13)


# --- where it starts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("components", [0, 5])
def test_hidden_units_begin_as_random_functions_of_the_inputs_and_the_controls_at_zero(components: int) -> None:
    layout = Layout(INPUTS, CONTROLS, 400)
    nothing = np.zeros(layout.count)
    space = whole_space(nothing, CONTROLS, 400)
    if components:
        space = component_space(nothing, CONTROLS, SEEN, components, slice(0), 400)
    begun = with_random_features(space, SEEN, np.random.default_rng(1))
    assert not layout.acts(begun.start) and begun.size == space.size
    bias, weights = begun.start[:400], begun.start[400 : layout.first].reshape(INPUTS, 400)
    sums = SEEN @ weights + bias
    assert (sums**2).mean() == pytest.approx(1.0, rel=0.15)
    np.testing.assert_array_equal(controls(begun.start, SEEN, layout), 0.0)
    if components:
        assert np.abs(sums.mean(axis=0)).max() < 1e-9, "around the mean of the inputs"


def test_without_a_sample_the_inputs_are_taken_to_be_of_mean_square_one() -> None:
    layout = Layout(50, CONTROLS, 300)
    space = with_random_features(whole_space(np.zeros(layout.count), CONTROLS, 300), None, np.random.default_rng(1))
    weights = space.start[300 : layout.first].reshape(50, 300)
    assert ((STREAM.standard_normal((200, 50)) @ weights) ** 2).mean() == pytest.approx(1.0, rel=0.1)


def test_inputs_that_never_change_give_no_infinite_weights() -> None:
    still = np.full((9, INPUTS), 3.0)
    space = component_space(NOTHING, CONTROLS, still, 5, slice(0), HIDDEN)
    assert np.isfinite(with_random_features(space, still, np.random.default_rng(1)).start).all()


# --- evolution -----------------------------------------------------------------------------------------------

TARGETS = np.tanh(1.5 * np.stack([SEEN[:, 0] * SEEN[:, 1] > 50, SEEN[:, 2] > 7], axis=1) - 0.75)


def agent_of(controller: np.ndarray | None = None) -> Agent:
    """What evolving needs of an agent."""
    whole: dict[str, Any] = {
        "controller": torch.from_numpy(NOTHING if controller is None else controller).float(),
        "task": Scripted(),
        "info": {},
        "inputs": PolicyInputs(("z",), INPUTS, 0),
        "layout": LAYOUT,
    }
    return cast(Agent, SimpleNamespace(**whole))


class Imitation:
    """Fitness by the distance to controls that no linear C has; remembers its calls."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls: list[np.ndarray] = []
        self._dies_at = dies_at

    def __call__(
        self, controllers: np.ndarray, seeds: Any, steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        if len(self.calls) == self._dies_at:
            raise KeyboardInterrupt
        self.calls.append(controllers)
        errors = [((controls(one, SEEN[:100]) - TARGETS[:100]) ** 2).mean() for one in controllers]
        return np.tile(-np.array(errors)[:, None], (1, len(seeds))), 1


def evolved(folder: Path, fitness: Imitation, agent: Agent | None = None, **settings: Any) -> Any:
    phase = toy_phase(fitness, inputs=lambda: SEEN, **{"population": 10, **settings})
    return evolve(agent or agent_of(), phase, folder)


def test_an_evolution_begins_with_random_features_and_its_result_is_a_better_controller(tmp_path: Path) -> None:
    found, metrics = evolved(tmp_path, fitness := Imitation(), generations=40, validate_every=20)
    start = load_tensors(tmp_path / "evolution.safetensors")[0]["start"]
    assert start[: LAYOUT.first].any() and not LAYOUT.acts(start)
    assert found.shape == (LAYOUT.count,) and LAYOUT.acts(found)
    assert metrics["validation"] > 0.8 * -(TARGETS[:100] ** 2).mean(), "which is what a C that does nothing gets"
    assert fitness.calls[0].shape == (10, LAYOUT.count)


def test_another_phase_begins_with_other_features_and_the_same_one_with_the_same(tmp_path: Path) -> None:
    starts = []
    for name, number in (("one", 0), ("again", 0), ("other", 1)):
        evolved(tmp_path / name, Imitation(), generations=1, number=number)
        starts.append(load_tensors(tmp_path / name / "evolution.safetensors")[0]["start"])
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("dies_at", [0, 3, 6])
def test_a_killed_evolution_continues_to_the_same_result(tmp_path: Path, dies_at: int) -> None:
    wanted = evolved(tmp_path / "whole", Imitation())
    with pytest.raises(KeyboardInterrupt):
        evolved(tmp_path / "killed", Imitation(dies_at))
    found = evolved(tmp_path / "killed", rest := Imitation())
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]
    assert len(rest.calls) <= 12 - dies_at, "it began anew"
    assert without_speed(tmp_path / "killed") == without_speed(tmp_path / "whole")


def test_the_next_phase_starts_from_the_evolved_controller_and_keeps_its_features(tmp_path: Path) -> None:
    first, _ = evolved(tmp_path / "first", Imitation(), generations=10)
    agent = agent_of(first.numpy())
    found, metrics = evolved(tmp_path / "second", fitness := Imitation(), agent, number=1, warm_start_sigma=1e-3)
    np.testing.assert_allclose(fitness.calls[0][0], first.numpy(), rtol=1e-6)
    np.testing.assert_allclose(fitness.calls[1], np.tile(first.numpy(), (10, 1)), atol=0.5)
    assert metrics["validation"] >= -((controls(first.double().numpy(), SEEN[:100]) - TARGETS[:100]) ** 2).mean() - 1e-9
    assert found.shape == first.shape


def test_a_checkpoint_that_started_from_another_controller_is_begun_anew(tmp_path: Path) -> None:
    evolved(tmp_path, Imitation(), generations=2)
    evolved(tmp_path, again := Imitation(), agent_of(START), generations=2)
    assert len([call for call in again.calls if len(call) == 10]) == 2
    evolved(tmp_path, back := Imitation(), agent_of(), generations=2)
    assert len([call for call in back.calls if len(call) == 10]) == 2


def test_a_checkpoint_of_a_linear_controller_is_refused(tmp_path: Path) -> None:
    linear = cast(Any, agent_of(np.zeros(CONTROLS * (INPUTS + 1))))
    linear.layout = Layout(INPUTS, CONTROLS)
    evolved(
        tmp_path, cast(Any, lambda controllers, seeds, *rest: (np.zeros((len(controllers), len(seeds))), 1)), linear
    )
    with pytest.raises(UserError, match="another population or controller"):
        evolved(tmp_path, Imitation())


def test_an_agent_with_a_hidden_layer_says_what_its_parameters_are() -> None:
    agent = dreamer(hidden=4)
    assert agent.layout == Layout(agent.inputs.size, 3, 4) and len(agent.controller) == agent.layout.count
