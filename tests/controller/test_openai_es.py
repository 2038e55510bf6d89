"""OpenAI's evolution strategy: its estimate of the gradient, its step, its schedule, and when it stands still."""

import numpy as np
import pytest

from worldmodels.controller.strategies import StrategySettings
from worldmodels.controller.strategies.openai_es import OpenAIES, antithetic_gradient


def openai_es(size: int, population: int, sigma: float, seed: int = 1, **more: float) -> OpenAIES:
    return OpenAIES(StrategySettings(size, population, sigma, seed, **more))  # type: ignore[arg-type]


def test_the_estimate_is_the_gradient_of_the_expected_value() -> None:
    """Of a quadratic, the expectation over the distribution has the gradient of the quadratic at the mean."""
    stream, sigma, pairs = np.random.default_rng(4), 0.3, 200_000
    mean, target, curvature = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.0, -1.0]), np.array([1.0, 3.0, 0.2])
    noise = stream.standard_normal((pairs, 3))

    def values(sign: int) -> np.ndarray:
        return -((mean + sign * sigma * noise - target) ** 2 @ curvature)

    found = antithetic_gradient(np.concatenate([values(1), values(-1)]), noise, sigma)
    assert found.dtype == np.float64
    wanted = -2 * curvature * (mean - target)
    # The standard error of each estimate is about the length of the gradient by the root of the number of pairs.
    np.testing.assert_allclose(found, wanted, atol=5 * np.linalg.norm(wanted) / np.sqrt(pairs))


def test_an_estimate_from_mirrored_samples_of_a_linear_function_has_no_error_along_the_noise() -> None:
    slope, noise = np.array([2.0, -1.0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    steps = 0.1 * noise
    values = np.concatenate([7.0 + steps @ slope, 7.0 - steps @ slope])
    np.testing.assert_allclose(antithetic_gradient(values, noise, 0.1), slope / 2, rtol=1e-12)


@pytest.mark.parametrize("population", [6, 7])
def test_a_generation_is_the_estimate_less_the_decay_and_a_step_of_adam(population: int) -> None:
    lr, decay, sigma = 0.05, 0.1, 0.3
    found = openai_es(3, population, sigma, 4, lr=lr, weight_decay=decay, sigma_decay=0.9)
    mean, first, second = np.zeros(3), np.zeros(3), np.zeros(3)
    for generation in range(1, 5):
        candidates = found.ask()
        fitness = np.roll([3.0, -1.0, 4.0, 1.5, -9.0, 2.0, 6.0][:population], generation)
        ranks = np.argsort(np.argsort(fitness)) / (population - 1) - 0.5
        found.tell(fitness)
        gradient = sum(ranks[one] * (candidates[one] - mean) / sigma for one in range(6)) / (6 * sigma)
        gradient = gradient - decay * mean
        # Kingma & Ba (2015), uphill.
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**generation), second / (1 - 0.999**generation)
        mean = mean + lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        sigma *= 0.9
        np.testing.assert_allclose(found.mean, mean, rtol=1e-10)
        assert found.sigma == pytest.approx(sigma)


def test_candidates_come_in_mirrored_pairs_and_an_odd_one_is_the_mean() -> None:
    found = openai_es(4, 7, 0.2, seed=3)
    for _ in range(3):
        candidates = found.ask()
        np.testing.assert_allclose((candidates[:3] + candidates[3:6]) / 2, np.tile(found.mean, (3, 1)), atol=1e-12)
        np.testing.assert_array_equal(candidates[6], found.mean)
        found.tell(-((candidates - 1) ** 2).sum(axis=1))
    spread = openai_es(3, 4000, 0.2, seed=3).ask().std(axis=0)
    np.testing.assert_allclose(spread, 0.2, rtol=0.05)


def test_a_generation_without_any_difference_moves_nothing() -> None:
    found = openai_es(4, 6, 0.2)
    for fitness in (np.full(6, -10.0), np.full(6, np.nan)):
        found.tell(fitness)
    np.testing.assert_array_equal(found.mean, np.zeros(4))


def test_weight_decay_leads_back_to_zero_when_nothing_else_leads_anywhere() -> None:
    found = openai_es(4, 10, 0.1, lr=0.05, weight_decay=0.5)
    for _ in range(20):
        found.tell(found.ask().sum(axis=1))
    away = np.linalg.norm(found.mean)
    for _ in range(300):
        found.tell(np.zeros(10))
    assert away > 0.5 and np.linalg.norm(found.mean) < 0.2 * away


def test_the_step_size_is_held_then_decays_and_stops_at_its_limit() -> None:
    found, sigmas = openai_es(3, 8, 0.08, sigma_decay=0.5, sigma_hold=2), []
    for _ in range(7):
        found.tell(np.zeros(8))
        sigmas.append(found.sigma)
    np.testing.assert_allclose(sigmas, [0.08, 0.08, 0.04, 0.02, 0.01, 0.01, 0.01])
    small = openai_es(3, 8, 0.005, sigma_decay=0.5)
    small.tell(np.zeros(8))
    assert small.sigma == 0.005, "the limit never makes steps larger"
