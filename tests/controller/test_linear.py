"""C: linear controllers, evaluated one by one, many on shared rows and many in order, and what they see."""

import numpy as np
import pytest
import torch

from worldmodels.controller.inputs import PolicyInputs
from worldmodels.controller.linear import LinearControllers, parameter_count
from worldmodels.core.errors import UserError

F, C = 7, 3


def exact(parameters: torch.Tensor, inputs: torch.Tensor, controls: int = C) -> np.ndarray:
    """Row n of the inputs (N, F) through controller n of the parameters (N, P), in float64."""
    bias, weights = np.split(parameters.double().numpy(), [controls], axis=1)
    own = weights.reshape(len(parameters), -1, controls)
    return np.tanh(np.einsum("nf,nfc->nc", inputs.double().numpy(), own) + bias)


def test_a_controller_for_car_racing_has_the_papers_867_parameters() -> None:
    assert parameter_count(32 + 256, 3) == 867


def test_parameters_are_the_biases_and_then_the_weights_input_by_input() -> None:
    parameters = torch.linspace(-0.9, 0.9, parameter_count(F, C))
    controllers = LinearControllers(parameters.expand(F + 1, -1), F, C)
    found = torch.atanh(controllers(torch.cat([torch.zeros(1, F), torch.eye(F)])))
    bias = parameters[:C]
    torch.testing.assert_close(found[0], bias)
    for number in range(F):
        weights = parameters[C + number * C : C + (number + 1) * C]
        torch.testing.assert_close(found[1 + number] - bias, weights, rtol=1e-4, atol=1e-5)


def test_the_batched_product_equals_one_controller_at_a_time() -> None:
    parameters, inputs = torch.randn(5, parameter_count(F, C)), torch.randn(5, F)
    batched = LinearControllers(parameters, F, C)(inputs)
    for n in range(5):
        alone = LinearControllers(parameters[n : n + 1], F, C)(inputs[n : n + 1])
        torch.testing.assert_close(batched[n], alone[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(batched.numpy(), exact(parameters, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 64, 65, 200], ids=lambda count: f"{count} controllers")
@pytest.mark.parametrize("size", [0, F], ids=["blind", "seeing"])
def test_the_three_ways_to_evaluate_controllers_agree(count: int, size: int) -> None:
    """64 controllers of 3 controls are the most that shared rows evaluate all at once."""
    stream = torch.Generator().manual_seed(count)
    parameters = torch.randn(count, parameter_count(size, C), generator=stream)
    inputs = torch.randn(4 * count, size, generator=stream)
    owners = torch.arange(4 * count) // 4
    controllers = LinearControllers(parameters, size, C)
    wanted = exact(parameters[owners], inputs)
    for found in (controllers(inputs, owners), controllers.shared(inputs, owners), controllers.in_order(inputs)):
        assert found.shape == (4 * count, C) and found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [5, 200])
def test_rows_that_share_controllers_come_in_any_order_and_number(count: int) -> None:
    stream = torch.Generator().manual_seed(count)
    parameters, inputs = (torch.randn(n, m, generator=stream) for n, m in ((count, parameter_count(F, C)), (33, F)))
    owners = torch.randint(count, (33,), generator=stream)
    controllers = LinearControllers(parameters, F, C)
    wanted = exact(parameters[owners], inputs)
    np.testing.assert_allclose(controllers.shared(inputs, owners).numpy(), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(controllers(inputs, owners).numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_chosen_rows_use_their_own_controllers_and_a_single_one_serves_all() -> None:
    parameters, inputs = torch.randn(6, parameter_count(F, C)), torch.randn(6, F)
    everyone, rows = LinearControllers(parameters, F, C)(inputs), torch.tensor([1, 4, 5])
    some = LinearControllers(parameters, F, C)(inputs[rows], rows)
    torch.testing.assert_close(some, everyone[rows])
    single = LinearControllers(parameters[:1], F, C)
    torch.testing.assert_close(single(inputs[rows], rows), single(inputs)[rows])


def test_a_controller_that_sees_nothing_is_its_biases() -> None:
    parameters = torch.tensor([[0.1, -0.2, 0.3], [1.0, 2.0, -1.0]])
    controllers = LinearControllers(parameters, 0, C)
    torch.testing.assert_close(controllers(torch.zeros(2, 0)), torch.tanh(parameters))


def test_parameters_of_another_size_are_refused_with_both_sizes() -> None:
    with pytest.raises(UserError, match=r"\(N, 24\).*got \(2, 23\)"):
        LinearControllers(torch.zeros(2, 23), F, C)


# --- what C sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("z", "h"), ("z", "c", "h"), ("h",), ()])
def test_inputs_stand_side_by_side_in_the_order_of_their_names(names: tuple[str, ...]) -> None:
    known = {"z": torch.randn(5, 4), "h": torch.randn(5, 6), "c": torch.randn(5, 6)}
    inputs = PolicyInputs(names, 4, 6)
    found = inputs(**known)
    assert found.shape == (5, inputs.size) == (5, sum(known[name].shape[1] for name in names))
    for name, values in known.items():
        assert torch.equal(found[:, inputs.part(name)], values if name in names else values[:, :0])


def test_inputs_know_where_each_of_them_stands() -> None:
    inputs = PolicyInputs(("z", "c", "h"), 4, 6)
    assert [inputs.part(name) for name in ("z", "c", "h")] == [slice(0, 4), slice(4, 10), slice(10, 16)]
    assert PolicyInputs(("z",), 4, 6).part("c") == slice(0)


def test_an_input_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"some of z, h and c.*got \['z', 'x'\]"):
        PolicyInputs(("z", "x"), 4, 6)
