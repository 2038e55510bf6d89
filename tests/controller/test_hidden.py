"""C with a hidden layer: its parameters, the ways to evaluate many at once, and agents that have one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.agent import AGENT_FILE, Agent, load_agent, untrained_agent
from worldmodels.controller.hidden import HiddenLayerControllers, make_controllers
from worldmodels.controller.layout import Layout
from worldmodels.controller.linear import LinearControllers
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.vision.conv_vae import ConvVAE
from worlds import Scripted

LAYOUT = Layout(inputs=7, controls=3, hidden=5)


def exact(parameters: torch.Tensor, inputs: torch.Tensor, layout: Layout = LAYOUT) -> np.ndarray:
    """Row n of the inputs (N, F) through controller n of the parameters (N, P), in float64, layer by layer."""
    found = []
    for row, x in zip(parameters.double().numpy(), inputs.double().numpy(), strict=True):
        sizes = [layout.hidden, layout.inputs * layout.hidden, layout.controls, layout.hidden * layout.controls]
        bias, weights, last_bias, last = np.split(row, np.cumsum(sizes)[:-1])
        units = np.tanh(x @ weights.reshape(layout.inputs, layout.hidden) + bias)
        found.append(np.tanh(units @ last.reshape(layout.hidden, layout.controls) + last_bias))
    return np.array(found)


def test_the_papers_controller_of_z_with_40_units_has_1443_parameters() -> None:
    assert Layout(32, 3, 40).count == 1443
    assert Layout(32 + 256, 3).count == 867 and Layout(32 + 2 * 256, 1).count == 545


def test_parameters_are_the_hidden_biases_and_weights_and_then_those_of_the_controls() -> None:
    layout = Layout(inputs=2, controls=1, hidden=2)
    parameters = torch.tensor([[0.1, 0.2, 1.0, 2.0, 3.0, 4.0, 0.5, -1.0, 0.25]])
    found = HiddenLayerControllers(parameters, layout)(torch.tensor([[1.0, -0.5]]))
    units = np.tanh([0.1 + 1.0 - 0.5 * 3.0, 0.2 + 2.0 - 0.5 * 4.0])
    np.testing.assert_allclose(found.numpy(), np.tanh([[0.5 - units[0] + 0.25 * units[1]]]), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 40, 200], ids=lambda count: f"{count} controllers")
def test_the_ways_to_evaluate_controllers_agree(count: int) -> None:
    stream = torch.Generator().manual_seed(count)
    parameters = torch.randn(count, LAYOUT.count, generator=stream)
    inputs = torch.randn(4 * count, LAYOUT.inputs, generator=stream)
    owners = torch.arange(4 * count) // 4
    controllers = HiddenLayerControllers(parameters, LAYOUT)
    wanted = exact(parameters[owners], inputs)
    for found in (controllers(inputs, owners), controllers.in_order(inputs)):
        assert found.shape == (4 * count, 3) and found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)
    chosen = torch.randint(count, (4,), generator=stream)
    np.testing.assert_allclose(
        controllers(inputs[:4], chosen).numpy(), exact(parameters[chosen], inputs[:4]), rtol=1e-4, atol=1e-5
    )


def test_parameters_of_another_size_are_refused_with_both_sizes() -> None:
    with pytest.raises(UserError, match=r"\(N, 58\) for 7 inputs, 5 hidden units and 3 controls, got \(2, 24\)"):
        HiddenLayerControllers(torch.zeros(2, 24), LAYOUT)
    with pytest.raises(UserError, match="0 or more hidden units of a controller, got -1"):
        Layout(7, 3, -1)


def test_without_hidden_units_controllers_are_linear() -> None:
    assert isinstance(make_controllers(torch.zeros(1, 24), Layout(7, 3)), LinearControllers)


def test_a_controller_acts_when_its_last_layer_does() -> None:
    parameters = torch.zeros(LAYOUT.count)
    parameters[: LAYOUT.first] = 1.0
    assert not LAYOUT.acts(parameters)
    parameters[-1] = 1e-3
    assert LAYOUT.acts(parameters) and LAYOUT.acts(parameters.numpy())
    linear = torch.zeros(24)
    assert not Layout(7, 3).acts(linear)
    linear[0] = 1.0
    assert Layout(7, 3).acts(linear)


# --- agents --------------------------------------------------------------------------------------------------


def agent_with(hidden: int = 5) -> Agent:
    torch.manual_seed(2)
    agent = untrained_agent(Scripted(), ConvVAE(4), MDNRNN(4, 2, 6, 2), ("z", "h"), hidden)
    agent.controller = torch.randn(len(agent.controller))
    return agent


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodels.agent.get_task", lambda name, **_: Scripted())


@pytest.mark.usefixtures("known")
def test_an_agent_with_a_hidden_layer_is_saved_and_loaded(tmp_path: Path) -> None:
    agent = agent_with()
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert loaded.layout == agent.layout == Layout(10, 2, 5) and torch.equal(loaded.controller, agent.controller)
    assert "hidden=5" in repr(loaded) and "hidden=" not in repr(agent_with(0))
    seen = torch.randn(3, 10)
    single = agent.controller[None]
    torch.testing.assert_close(loaded.controllers(single)(seen), agent.controllers(single)(seen))


@pytest.mark.usefixtures("known")
def test_the_file_of_a_linear_agent_does_not_speak_of_hidden_units(tmp_path: Path) -> None:
    agent_with(0).save(tmp_path)
    assert "hidden" not in load_tensors(tmp_path / AGENT_FILE)[1]
    assert load_agent(tmp_path).layout.hidden == 0


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("wrong", [-1, 0, 4, 10**30, "many", None, [5], float("inf")])
def test_a_number_of_hidden_units_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, wrong: object) -> None:
    agent_with().save(tmp_path)
    tensors, meta = load_tensors(tmp_path / AGENT_FILE)
    save_tensors(tmp_path / AGENT_FILE, tensors, meta | {"hidden": wrong})
    with pytest.raises(UserError, match="is not an agent that this version of worldmodels can use") as refused:
        load_agent(tmp_path)
    assert "\n" not in str(refused.value)


def test_every_environment_acts_with_its_own_controller() -> None:
    agent = agent_with()
    parameters = torch.randn(3, agent.layout.count)
    observations = np.random.default_rng(1).integers(0, 256, (3, *agent.task.observation_shape), dtype=np.uint8)
    together = agent.policy(3, parameters).act(observations)
    for row in range(3):
        alone = agent.policy(1, parameters[row : row + 1]).act(observations[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
