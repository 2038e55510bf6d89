"""The genetic algorithm: who has children, what they inherit, and how long the best one stays."""

import numpy as np
import pytest

from worldmodels.controller.strategies import StrategySettings
from worldmodels.controller.strategies.ga import GA


def ga(size: int, population: int, sigma: float, seed: int = 1, **more: float) -> GA:
    return GA(StrategySettings(size, population, sigma, seed, **more))  # type: ignore[arg-type]


def test_the_first_generation_descends_from_zero_which_is_its_first_candidate() -> None:
    candidates = ga(5, 2000, 0.3).ask()
    assert not candidates[0].any()
    np.testing.assert_allclose(candidates[1:].std(), 0.3, rtol=0.03)
    np.testing.assert_allclose(candidates[1:].mean(), 0.0, atol=0.01)


def test_the_best_candidate_is_the_first_of_the_next_generation_and_the_mean() -> None:
    found = ga(3, 10, 0.2)
    for best in (4, 7, 0):
        candidates, fitness = found.ask(), np.zeros(10)
        fitness[best] = 1.0
        found.tell(fitness)
        np.testing.assert_array_equal(found.mean, candidates[best])
        np.testing.assert_array_equal(found.ask()[0], candidates[best])


def test_a_best_one_that_fails_on_other_episodes_is_replaced() -> None:
    found = ga(2, 6, 0.1)
    found.tell(np.arange(6.0))
    lucky = found.mean
    found.tell(-np.arange(6.0)[::-1])
    assert not np.array_equal(found.mean, lucky)


def test_only_the_best_fraction_has_children_and_each_of_them_about_as_many() -> None:
    found = ga(2, 1001, 1e-3, elite_fraction=0.004)
    spots = np.zeros((1001, 2))
    spots[[10, 20, 30, 40]] = [[5, 5], [-5, 5], [-5, -5], [5, -5]]
    found._candidates = spots
    fitness = np.zeros(1001)
    fitness[[10, 20, 30, 40]] = [4.0, 3.0, 2.0, 1.0]
    found.tell(fitness)
    children = np.round(found.ask()[1:])
    assert set(map(tuple, children.tolist())) == {(5, 5), (-5, 5), (-5, -5), (5, -5)}
    counts = [int((children == spots[one]).all(axis=1).sum()) for one in (10, 20, 30, 40)]
    assert min(counts) > 200, "a quarter of 1,000 each"


def test_at_least_one_candidate_has_children() -> None:
    found = ga(2, 4, 1e-3, elite_fraction=0.01)
    best = found.ask()[2]
    found.tell(np.array([0.0, 0.0, 1.0, 0.0]))
    np.testing.assert_allclose(found.ask(), np.tile(best, (4, 1)), atol=0.01)


@pytest.mark.parametrize(("crossover", "mixed"), [(0.0, 0.0), (1.0, 0.5), (0.5, 0.25)])
def test_with_crossover_a_child_takes_every_coordinate_from_one_of_two_parents(crossover: float, mixed: float) -> None:
    found = ga(8, 2001, 1e-4, elite_fraction=0.001, crossover=crossover)
    parents = np.zeros((2001, 8))
    parents[3], parents[4] = 1.0, 2.0
    found._candidates = parents
    fitness = np.zeros(2001)
    fitness[[3, 4]] = 2.0, 1.0
    found.tell(fitness)
    children = found.ask()[1:]
    rounded = np.round(children)
    np.testing.assert_allclose(children, rounded, atol=1e-3)
    assert set(rounded.ravel().tolist()) == {1.0, 2.0}
    # Half of the pairs of parents are twice the same one, and of 8 coordinates it is rare that all come from one.
    share = float((rounded.min(axis=1) != rounded.max(axis=1)).mean())
    assert share == pytest.approx(mixed, abs=0.05)


def test_mutations_are_held_then_become_smaller_down_to_a_limit() -> None:
    found, sigmas = ga(2, 4, 0.08, sigma_decay=0.5, sigma_hold=1), []
    for _ in range(5):
        found.tell(np.zeros(4))
        sigmas.append(found.sigma)
    np.testing.assert_allclose(sigmas, [0.08, 0.04, 0.02, 0.01, 0.01])


def test_a_generation_without_any_difference_keeps_the_elite() -> None:
    found = ga(3, 6, 0.2)
    found.tell(np.arange(6.0))
    elite = found.mean
    for fitness in (np.full(6, 3.0), np.full(6, np.nan), np.full(6, -np.inf)):
        found.tell(fitness)
        np.testing.assert_array_equal(found.mean, elite)
