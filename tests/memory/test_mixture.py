"""The mixture density of each latent dimension: its log density, its mean and its samples."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from worldmodels.bench.dream import sample
from worldmodels.memory.mixture import (
    Mixture,
    _LogLikelihood,
    expectation,
    head_log_likelihood,
    log_likelihood,
    mixture_from,
)

Z, K = 4, 5


def outputs(*batch: int, spread: float = 1.5) -> Tensor:
    """A linear layer's outputs (..., Z*3*K)."""
    return spread * torch.randn(*batch, Z * 3 * K, generator=torch.Generator().manual_seed(3))


def one_dimension(weights: list[float], means: list[float], scales: list[float]) -> Mixture:
    """A mixture for one latent dimension, (1, K)."""
    rows = [torch.tensor([values]) for values in (np.log(weights).tolist(), means, np.log(scales).tolist())]
    return Mixture(*rows)


def draws(mixture: Mixture, temperature: float, count: int = 40_000) -> np.ndarray:
    """Samples (count,) of a one-dimensional mixture."""
    many = Mixture(*(part.expand(count, *part.shape) for part in mixture))
    return sample(many, temperature, torch.Generator().manual_seed(7)).squeeze(-1).numpy().astype(np.float64)


def density_by_hand(raw: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Log densities (Z,) of z (Z,) in float64, term by term; raw holds (Z, [logit, mean, log scale], K)."""
    result = np.zeros(Z)
    for d in range(Z):
        logits, means, log_scales = raw.astype(np.float64).reshape(Z, 3, K)[d]
        weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        scales = np.exp(log_scales)
        bells = np.exp(-0.5 * ((z[d] - means) / scales) ** 2) / (scales * math.sqrt(2 * math.pi))
        result[d] = math.log((weights * bells).sum())
    return result


def test_log_densities_are_those_of_a_float64_sum_written_by_hand() -> None:
    raw, z = outputs(50), torch.randn(50, Z, generator=torch.Generator().manual_seed(4))
    found = log_likelihood(mixture_from(raw, Z), z).numpy()
    wanted = np.stack([density_by_hand(raw[i].numpy(), z[i].double().numpy()) for i in range(50)])
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_the_density_for_training_and_its_gradients_are_those_of_float64() -> None:
    torch.manual_seed(5)
    head, hidden, z = nn.Linear(6, Z * 3 * K), torch.randn(3, 8, 6, requires_grad=True), 2 * torch.randn(3, 8, Z)
    with torch.no_grad():
        head.weight.mul_(4)  # densities that differ between components by many nats
    given = torch.randn(3, 8, Z)
    found = head_log_likelihood(head, hidden, z)
    (found * given).sum().backward()
    exact, exact_hidden = copy.deepcopy(head).double(), hidden.detach().double().requires_grad_()
    logits, means, log_scales = exact(exact_hidden).unflatten(-1, (Z, 3, K)).unbind(-2)
    mixture = Mixture(torch.log_softmax(logits, -1), means, log_scales)
    wanted = log_likelihood(mixture, z.double())
    exact.zero_grad()
    (wanted * given).sum().backward()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    for mine, theirs in ((hidden, exact_hidden), (head.weight, exact.weight), (head.bias, exact.bias)):
        assert mine.grad is not None and theirs.grad is not None
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4 * theirs.grad.abs().max())


def test_the_gradient_by_hand_is_that_of_finite_differences() -> None:
    torch.manual_seed(6)
    raw = torch.randn(2, 3, K, Z, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, Z, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda outputs: _LogLikelihood.apply(outputs, z), (raw,))


def test_the_density_for_training_stands_components_that_weigh_nothing_or_lie_far_away() -> None:
    raw = torch.zeros(1, 3, K, Z)
    raw[0, 0, 1:] = -200.0  # only the first component has a weight
    raw[0, 1, 0], raw[0, 2, 0] = 300.0, -3.0  # and it is far from z and narrow
    raw.requires_grad_()
    density = _LogLikelihood.apply(raw, torch.zeros(1, Z))
    density.sum().backward()
    # The others' bells weigh exp(-200) each, which is more than that of the first at a distance of 6,000 scales.
    wanted = math.log(4) - 200 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(density, torch.full((1, Z), wanted))
    assert raw.grad is not None and raw.grad.isfinite().all()
    torch.testing.assert_close(raw.grad[0, 0], torch.tensor([-1.0, *[0.25] * 4])[:, None].expand(K, Z))


def test_log_densities_are_those_of_torch_distributions() -> None:
    mixture, z = mixture_from(outputs(6, 7), Z), torch.randn(6, 7, Z)
    reference = MixtureSameFamily(
        Categorical(logits=mixture.log_weights), Normal(mixture.means, mixture.log_scales.exp())
    )
    torch.testing.assert_close(log_likelihood(mixture, z), reference.log_prob(z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expectation(mixture), reference.mean, rtol=1e-5, atol=1e-5)


def test_densities_integrate_to_one() -> None:
    mixture = mixture_from(outputs(1, spread=0.7), Z)
    grid = torch.linspace(-40, 40, 80_001)[:, None].expand(-1, Z)
    mass = log_likelihood(mixture, grid).double().exp().sum(0) * 0.001
    torch.testing.assert_close(mass, torch.ones(Z, dtype=torch.float64), rtol=1e-4, atol=0)


def test_gradients_of_the_log_density_are_those_of_finite_differences() -> None:
    logits, means, log_scales, z = (
        torch.randn(3, 2, K, dtype=torch.float64),
        torch.randn(3, 2, K, dtype=torch.float64),
        0.3 * torch.randn(3, 2, K, dtype=torch.float64),
        torch.randn(3, 2, dtype=torch.float64),
    )

    def density(logits: Tensor, means: Tensor, log_scales: Tensor, z: Tensor) -> Tensor:
        return log_likelihood(Mixture(torch.log_softmax(logits, -1), means, log_scales), z)

    inputs = tuple(one.requires_grad_() for one in (logits, means, log_scales, z))
    assert torch.autograd.gradcheck(density, inputs)


def test_values_far_from_every_component_give_finite_densities_and_gradients() -> None:
    raw = outputs(2).requires_grad_()
    total = log_likelihood(mixture_from(raw, Z), torch.full((2, Z), 1e4)).sum()
    total.backward()
    assert total.isfinite() and raw.grad is not None and raw.grad.isfinite().all()


def test_every_latent_dimension_has_a_mixture_of_its_own() -> None:
    raw, z = outputs(1), torch.zeros(1, Z)
    before = log_likelihood(mixture_from(raw, Z), z)
    changed = raw.clone()
    changed[0, 3 * K : 6 * K] += torch.randn(3 * K)  # everything that belongs to dimension 1
    after = log_likelihood(mixture_from(changed, Z), z)
    assert (before != after).tolist() == [[False, True, False, False]]


def test_dimensions_choose_their_components_independently() -> None:
    """One shared choice, the commonest bug, would make the two dimensions always agree."""
    halves = torch.log(torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    mixture = Mixture(halves, torch.tensor([[-10.0, 10.0]] * 2), torch.zeros(2, 2))
    many = Mixture(*(part.expand(20_000, 2, 2) for part in mixture))
    z = sample(many, generator=torch.Generator().manual_seed(1)) > 0
    agreement = (z[:, 0] == z[:, 1]).double().mean().item()
    assert abs(agreement - 0.5) < 5 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_components_are_chosen_by_weights_sharpened_by_temperature(temperature: float) -> None:
    weights = [0.5, 0.25, 0.15, 0.07, 0.03]
    mixture = one_dimension(weights, [0, 100, 200, 300, 400], [1] * 5)
    found = np.bincount(np.rint(draws(mixture, temperature) / 100).astype(int), minlength=5)
    sharpened = np.array(weights) ** (1 / temperature)
    wanted = found.sum() * sharpened / sharpened.sum()
    chi_square = ((found - wanted) ** 2 / wanted).sum()
    assert chi_square < 18.5  # 0.1% of right samplers are above, with 4 degrees of freedom


@pytest.mark.parametrize("temperature", [0.25, 1.0, 1.3])
def test_noise_has_the_components_scale_times_the_square_root_of_temperature(temperature: float) -> None:
    noise = draws(one_dimension([0.999999, 0.000001], [2.0, 2.0], [0.7, 0.7]), temperature) - 2.0
    wanted = 0.7 * math.sqrt(temperature)
    assert abs(noise.mean()) < 5 * wanted / math.sqrt(len(noise))
    assert noise.std() == pytest.approx(wanted, rel=5 / math.sqrt(2 * len(noise)))
    kurtosis = ((noise / noise.std()) ** 4).mean()
    assert kurtosis == pytest.approx(3, abs=5 * math.sqrt(24 / len(noise)))


def test_samples_at_temperature_one_follow_the_density() -> None:
    mixture = one_dimension([0.3, 0.7], [-1.0, 0.5], [0.4, 0.9])
    z = draws(mixture, 1.0)
    edges = np.linspace(-2.5, 3, 23)
    middle = torch.linspace(-2.5, 3, 22 * 50 + 1)
    density = log_likelihood(Mixture(*(part.expand(len(middle), 1, 2) for part in mixture)), middle[:, None])
    mass = density.exp().squeeze(-1).double().numpy()
    wanted = [np.trapezoid(mass[i * 50 : (i + 1) * 50 + 1], dx=0.005) * len(z) for i in range(22)]
    found, _ = np.histogram(z, edges)
    assert ((found - wanted) ** 2 / np.array(wanted)).sum() < 49  # 0.1% quantile for 22 degrees of freedom: 48.3


def test_the_expectation_is_the_mean_of_many_samples() -> None:
    mixture = one_dimension([0.2, 0.8], [-3.0, 1.0], [0.5, 1.0])
    assert expectation(mixture).item() == pytest.approx(0.2, abs=1e-6)
    assert draws(mixture, 1.0).mean() == pytest.approx(0.2, abs=0.05)


def test_a_generator_makes_samples_repeatable_and_leaves_the_global_stream_alone() -> None:
    mixture, before = mixture_from(outputs(3), Z), torch.random.get_rng_state()
    first, second = (sample(mixture, 1.0, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(before, torch.random.get_rng_state())


def test_outputs_in_half_precision_become_a_float32_mixture() -> None:
    mixture = mixture_from(outputs(3).bfloat16(), Z)
    assert all(part.dtype == torch.float32 and part.shape == (3, Z, K) for part in mixture)
    torch.testing.assert_close(mixture.log_weights.exp().sum(-1), torch.ones(3, Z))
