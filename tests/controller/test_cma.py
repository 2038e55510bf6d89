"""CMA-ES behind ask and tell."""

from collections.abc import Callable

import numpy as np
import pytest

from worldmodels.controller.strategies import StrategySettings
from worldmodels.controller.strategies.cma import CMAES

KINDS = pytest.mark.parametrize("diagonal", [False, True], ids=["full", "diagonal"])


def cmaes(size: int, population: int, sigma: float, diagonal: bool = False, seed: int = 1, **more: float) -> CMAES:
    return CMAES(StrategySettings(size, population, sigma, seed, **more), diagonal)  # type: ignore[arg-type]


def ellipsoid(x: np.ndarray) -> np.ndarray:
    """Negative ellipsoid with condition number 10,000 around (1, ..., 1)."""
    return -((x - 1) ** 2 * np.logspace(0, 4, x.shape[1])).sum(axis=1)


def sphere(x: np.ndarray) -> np.ndarray:
    return -((x - 1) ** 2).sum(axis=1)


def generations(strategy: CMAES, count: int, function: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """Evolve; the fitness of every generation."""
    told = []
    for _ in range(count):
        told.append(function(strategy.ask()))
        strategy.tell(told[-1])
    return told


@KINDS
@pytest.mark.parametrize(("function", "needed"), [(sphere, 120), (ellipsoid, 350)])
def test_it_finds_the_optimum(diagonal: bool, function: Callable[[np.ndarray], np.ndarray], needed: int) -> None:
    strategy = cmaes(5, 10, 0.5, diagonal)
    generations(strategy, needed, function)
    assert sphere(strategy.mean[None])[0] > -1e-9
    assert strategy.sigma < 1e-2


def test_only_the_full_covariance_learns_that_coordinates_belong_together() -> None:
    """In a narrow diagonal valley, the diagonal one must creep."""

    def valley(x: np.ndarray) -> np.ndarray:
        return -(((x[:, 0] + x[:, 1]) / 2 - 1) ** 2 + 1e4 * (x[:, 0] - x[:, 1]) ** 2)

    full, diagonal = cmaes(2, 8, 0.5), cmaes(2, 8, 0.5, True)
    for strategy in (full, diagonal):
        generations(strategy, 60, valley)
    assert valley(full.mean[None])[0] > -1e-6 > valley(diagonal.mean[None])[0]


@KINDS
def test_telling_the_recorded_fitness_again_gives_the_identical_next_candidates(diagonal: bool) -> None:
    first = cmaes(12, 8, 0.3, diagonal, seed=5)
    told = generations(first, 15, ellipsoid)
    again = cmaes(12, 8, 0.3, diagonal, seed=5)
    for fitness in told:
        again.tell(fitness)
    assert np.array_equal(first.mean, again.mean) and first.sigma == again.sigma
    for _ in range(5):
        assert np.array_equal(first.ask(), again.ask())
        first.tell(ellipsoid(first.ask()))
        again.tell(ellipsoid(again.ask()))


def test_asking_twice_gives_the_same_candidates_even_if_the_first_were_changed() -> None:
    strategy = cmaes(4, 6, 0.3)
    first = strategy.ask()
    wanted = first.copy()
    first += 1
    assert np.array_equal(strategy.ask(), wanted)


def test_a_generation_without_any_number_or_difference_does_no_harm() -> None:
    strategy = cmaes(6, 8, 0.3, seed=2)
    for fitness in (np.full(8, np.nan), np.full(8, -10.0), np.full(8, -np.inf)):
        strategy.tell(fitness)
    assert np.isfinite(strategy.ask()).all() and strategy.sigma < 1.0


@KINDS
def test_numpys_global_random_numbers_are_neither_used_nor_touched(diagonal: bool) -> None:
    found = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)
        before = np.random.get_state()[1].tolist()  # type: ignore[index]
        strategy = cmaes(6, 8, 0.3, diagonal, seed=3)
        generations(strategy, 12, sphere)
        assert np.random.get_state()[1].tolist() == before  # type: ignore[index]
        found.append(strategy.ask())
    assert np.array_equal(*found)


def test_another_seed_gives_other_candidates() -> None:
    assert not np.array_equal(*(cmaes(6, 8, 0.3, seed=seed).ask() for seed in (1, 2)))


@KINDS
@pytest.mark.filterwarnings("ignore")
def test_it_is_plain_pycma_maximising(diagonal: bool) -> None:
    import cma

    stream = np.random.default_rng([9, 31])
    options = {
        "popsize": 8, "seed": np.nan, "verbose": -9, "CMA_diagonal": diagonal,
        "randn": lambda *shape: stream.standard_normal(shape),
    }  # fmt: skip
    plain, ours = cma.CMAEvolutionStrategy(np.zeros(7), 0.4, options), cmaes(7, 8, 0.4, diagonal, seed=9)
    for _ in range(20):
        candidates = plain.ask()
        assert np.array_equal(np.array(candidates), ours.ask())
        plain.tell(candidates, (-ellipsoid(np.array(candidates))).tolist())
        ours.tell(ellipsoid(ours.ask()))
    np.testing.assert_array_equal(plain.mean, ours.mean)


def test_the_step_size_is_held_and_then_decays() -> None:
    plain, held = (cmaes(4, 6, 0.3, True, sigma_decay=decay, sigma_hold=3) for decay in (1.0, 0.5))
    ratios = []
    for _ in range(6):
        ratios.append(held.sigma / plain.sigma)
        fitness = -(held.ask() ** 2).sum(axis=1)
        for strategy in (plain, held):
            strategy.ask()
            strategy.tell(fitness)
    assert ratios[:4] == [1.0] * 4
    assert ratios[4] == pytest.approx(0.5) and ratios[5] < 0.5
