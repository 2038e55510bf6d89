"""The strategies behind ask and tell: each climbs, repeats itself exactly, and PEPG follows its equations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toy import Toy, toy_agent, toy_phase
from worldmodels.controller.strategies import STRATEGIES, Strategy, StrategySettings, make_strategy
from worldmodels.controller.strategies.cma import CMAES
from worldmodels.controller.strategies.pepg import PEPG
from worldmodels.controller.strategies.ranks import centred_ranks
from worldmodels.core.errors import UserError
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.evolution.loop import evolve
from worldmodels.evolution.phases import phases_of

SETTINGS = StrategySettings(
    size=5, population=12, sigma=0.1, seed=1, sigma_decay=0.99, sigma_hold=40, lr=0.1, weight_decay=0.0
)
EACH = pytest.mark.parametrize("name", ["cma", "sep-cma", "pepg", "openai-es", "ga"])


def strategy(name: str, size: int = 5, seed: int = 1, key: tuple[int, ...] = ()) -> Strategy:
    return make_strategy(name, replace(SETTINGS, size=size, seed=seed, key=key))


def pepg(size: int, population: int, sigma: float, seed: int, **more: float) -> PEPG:
    return PEPG(StrategySettings(size, population, sigma, seed, **more))  # type: ignore[arg-type]


def sphere(x: np.ndarray) -> np.ndarray:
    return -((x - 1) ** 2).sum(axis=1)


def rosenbrock(x: np.ndarray) -> np.ndarray:
    """Negative, with its optimum of 0 at (1, ..., 1)."""
    return -(100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(axis=1)


@EACH
def test_every_strategy_climbs_a_quadratic_in_a_few_hundred_evaluations(name: str) -> None:
    found = strategy(name)
    for _ in range(40):
        found.tell(sphere(found.ask()))
    assert sphere(found.mean[None])[0] > -0.05, "it began at -5"


def ellipsoid(x: np.ndarray) -> np.ndarray:
    """Negative, with axes of which the longest is ten times the shortest, around (1, ..., 1)."""
    return -((x - 1) ** 2 * np.logspace(0, 2, x.shape[1])).sum(axis=1)


@EACH
def test_every_strategy_approaches_the_centre_of_an_ellipsoid(name: str) -> None:
    found = strategy(name)
    before = ellipsoid(found.mean[None])[0]
    for _ in range(60):
        found.tell(ellipsoid(found.ask()))
    assert ellipsoid(found.mean[None])[0] > 0.02 * before


@EACH
def test_every_strategy_finds_the_bent_valley_of_rosenbrock(name: str) -> None:
    found = strategy(name, size=2)
    for _ in range(100):
        found.tell(rosenbrock(found.ask()))
    assert rosenbrock(found.mean[None])[0] > -0.3, "it began at -1, and on the valley's floor there is little slope"


@EACH
def test_telling_the_recorded_fitness_again_gives_the_identical_next_candidates(name: str) -> None:
    first, again, told = strategy(name), strategy(name), []
    for _ in range(15):
        told.append(sphere(first.ask()))
        first.tell(told[-1])
    for fitness in told:
        again.tell(fitness)
    assert np.array_equal(first.ask(), again.ask()) and np.array_equal(first.mean, again.mean)
    assert first.sigma == again.sigma
    assert not np.array_equal(first.ask(), strategy(name, seed=2).ask())


@EACH
@pytest.mark.parametrize("population", [2, 7, 12])
def test_the_population_has_the_size_that_was_asked_for(name: str, population: int) -> None:
    found = make_strategy(name, replace(SETTINGS, size=3, population=population))
    for _ in range(3):
        candidates = found.ask()
        assert candidates.shape == (population, 3)
        assert np.array_equal(candidates, found.ask())
        candidates += 1
        assert not np.array_equal(candidates, found.ask())
        found.tell(sphere(found.ask()))


@EACH
@pytest.mark.parametrize("size", [1, 2, 300])
def test_the_search_space_may_have_one_dimension_or_many(name: str, size: int) -> None:
    found = strategy(name, size=size)
    for _ in range(5):
        candidates = found.ask()
        assert candidates.shape == (12, size) and np.isfinite(candidates).all()
        found.tell(sphere(candidates))
    assert found.mean.shape == (size,) and sphere(found.mean[None])[0] > -1.0 * size


@pytest.mark.parametrize("name", ["sep-cma", "pepg", "openai-es", "ga"])
def test_two_thousand_dimensions_are_no_burden_without_a_full_covariance(name: str) -> None:
    found = strategy(name, size=2000)
    for _ in range(5):
        candidates = found.ask()
        assert candidates.shape == (12, 2000) and np.isfinite(candidates).all()
        found.tell(sphere(candidates))
    assert len(np.unique(candidates, axis=0)) == 12


@EACH
def test_only_the_order_of_fitness_counts(name: str) -> None:
    plain, bent = (make_strategy(name, replace(SETTINGS, weight_decay=0.1)) for _ in range(2))
    for _ in range(8):
        fitness = sphere(plain.ask())
        plain.tell(fitness)
        bent.tell(np.exp(fitness / 10) * 1000 - 7)
        assert np.array_equal(plain.ask(), bent.ask())


@EACH
def test_fitness_without_any_difference_or_number_leaves_candidates_that_are_numbers(name: str) -> None:
    found = strategy(name)
    for fitness in (np.zeros(12), np.full(12, np.nan), np.full(12, np.inf), np.full(12, -3.0)):
        found.tell(fitness)
    assert np.isfinite(found.ask()).all() and 0 < found.sigma < 1


@EACH
@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_a_fitness_that_is_no_number_counts_as_the_worst(name: str, bad: float) -> None:
    broken, clean = strategy(name), strategy(name)
    for _ in range(4):
        fitness = sphere(broken.ask())
        worst = fitness.copy()
        fitness[3], worst[3] = bad, fitness.min() - 100
        broken.tell(fitness)
        clean.tell(worst)
        assert np.array_equal(broken.ask(), clean.ask())


def test_cma_has_the_full_covariance_and_sep_cma_a_diagonal_one() -> None:
    for name, diagonal in (("cma", False), ("sep-cma", True)):
        made, plain = strategy(name, seed=9), CMAES(replace(SETTINGS, seed=9), diagonal)
        for _ in range(45):
            assert np.array_equal(made.ask(), plain.ask())
            made.tell(sphere(made.ask()))
            plain.tell(sphere(plain.ask()))


@EACH
def test_another_key_is_another_stream_and_the_key_zero_is_none(name: str) -> None:
    """So the first phase of an evolution asks what it asked before there were phases."""
    plain, first, second = strategy(name), strategy(name, key=(0,)), strategy(name, key=(1,))
    assert np.array_equal(plain.ask(), first.ask())
    # A genetic algorithm always begins with zero itself.
    assert not np.isclose(first.ask()[1:], second.ask()[1:]).any()


@EACH
def test_a_killed_evolution_continues_to_the_same_result(name: str, tmp_path: Path) -> None:
    wanted = evolve(toy_agent(), toy_phase(Toy(), strategy=name), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), toy_phase(Toy(5), strategy=name), tmp_path / "killed")
    found = evolve(toy_agent(), toy_phase(Toy(), strategy=name), tmp_path / "killed")
    assert found[0].equal(wanted[0]) and found[1] == wanted[1]


# --- PEPG ----------------------------------------------------------------------------------------------------


def test_candidates_come_in_mirrored_pairs_and_an_odd_one_is_the_mean() -> None:
    found = pepg(4, 7, 0.2, seed=3)
    for _ in range(3):
        candidates = found.ask()
        np.testing.assert_allclose((candidates[:3] + candidates[3:6]) / 2, np.tile(found.mean, (3, 1)), atol=1e-12)
        np.testing.assert_array_equal(candidates[6], found.mean)
        found.tell(sphere(candidates))
    assert (found.mean != 0).all()
    spread = pepg(3, 4000, 0.2, seed=3).ask().std(axis=0)
    np.testing.assert_allclose(spread, 0.2, rtol=0.05)


def test_ranks_go_from_minus_to_plus_a_half_and_equals_share_theirs() -> None:
    np.testing.assert_allclose(centred_ranks(np.array([10.0, -3.0, 2.0, 2.5])), [0.5, -0.5, -1 / 6, 1 / 6])
    np.testing.assert_allclose(centred_ranks(np.array([1.0, 1.0, 5.0])), [-0.25, -0.25, 0.5])
    np.testing.assert_allclose(centred_ranks(np.array([np.nan, 1.0, np.inf])), [-0.25, 0.5, -0.25])
    np.testing.assert_allclose(centred_ranks(np.full(6, 7.0)), 0)


@pytest.mark.parametrize("population", [6, 7])
def test_a_generation_is_the_equations_of_the_paper_and_a_step_of_adam(population: int) -> None:
    sigma_decay, lr, weight_decay = 0.9, 0.05, 0.1
    found = pepg(3, population, 0.3, 4, lr=lr, weight_decay=weight_decay, sigma_decay=sigma_decay)
    mean, sigmas, first, second = np.zeros(3), np.full(3, 0.3), np.zeros(3), np.zeros(3)
    for generation in range(1, 5):
        candidates = found.ask()
        fitness = np.roll([3.0, -1.0, 4.0, 1.5, -9.0, 2.0, 6.0][:population], generation)
        shaped = np.argsort(np.argsort(fitness)) / (population - 1) - 0.5
        shaped = shaped - weight_decay * (candidates**2).mean(axis=1)
        found.tell(fitness)
        baseline = shaped[6] if population == 7 else np.mean(shaped)
        slope_mean, slope_sigma = np.zeros(3), np.zeros(3)
        for pair in range(3):
            noise, up, down = candidates[pair] - mean, shaped[pair], shaped[pair + 3]
            slope_mean += noise * (up - down) / 2
            slope_sigma += (noise**2 - sigmas**2) / sigmas * ((up + down) / 2 - baseline) / 3
        # Kingma & Ba (2015), uphill.
        first, second = 0.9 * first + 0.1 * slope_mean, 0.999 * second + 0.001 * slope_mean**2
        unbiased = first / (1 - 0.9**generation), second / (1 - 0.999**generation)
        mean = mean + lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        lr *= 0.9999
        sigmas = (sigmas + np.clip(0.2 * slope_sigma, -0.2 * sigmas, 0.2 * sigmas)) * sigma_decay
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.sigmas, sigmas, rtol=1e-12)


def test_a_coordinate_that_matters_gets_small_steps_and_an_idle_one_keeps_its_own() -> None:
    found = pepg(2, 40, 0.3, 5, lr=0.01, weight_decay=0.0)
    for _ in range(60):
        found.tell(-(found.ask()[:, 0] ** 2))
    assert found.sigmas[0] < 0.5 * found.sigmas[1]


def test_the_decay_begins_after_the_hold_and_stops_at_its_limit() -> None:
    found, equal = pepg(3, 8, 0.1, 5, sigma_decay=0.5, sigma_hold=2, weight_decay=0.0), np.zeros(8)
    sigmas = []
    for _ in range(6):
        found.tell(equal)
        sigmas.append(found.sigma)
    np.testing.assert_allclose(sigmas, [0.1, 0.1, 0.05, 0.025, 0.02, 0.02])
    small = pepg(3, 8, 0.01, 5, sigma_decay=0.5)
    small.tell(equal)
    assert small.sigma == pytest.approx(0.01), "the limit never makes steps larger"


def test_a_generation_without_any_difference_moves_nothing() -> None:
    found = pepg(4, 6, 0.2, 1, weight_decay=0.0)
    for fitness in (np.full(6, -10.0), np.full(6, np.nan)):
        found.tell(fitness)
    np.testing.assert_array_equal(found.mean, np.zeros(4))


def test_weight_decay_alone_leads_towards_zero() -> None:
    heavy, free = (pepg(4, 10, 0.1, 1, lr=0.05, weight_decay=decay) for decay in (1.0, 0.0))
    luck = np.random.default_rng(1)
    for _ in range(200):
        fitness = luck.random(10)
        heavy.tell(fitness), free.tell(fitness)
    led_away = np.linalg.norm(heavy.mean)
    assert 0.2 < led_away < 0.5 * np.linalg.norm(free.mean)
    for _ in range(100):
        heavy.tell(np.zeros(10)), free.tell(np.zeros(10))
    assert np.linalg.norm(heavy.mean) < 0.5 * led_away and np.linalg.norm(free.mean) > 1


def test_numpys_global_random_numbers_are_neither_used_nor_touched() -> None:
    asked = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)
        before = np.random.get_state()[1].tolist()  # type: ignore[index]
        asked.append(pepg(3, 6, 0.1, 1).ask())
        assert np.random.get_state()[1].tolist() == before  # type: ignore[index]
    assert np.array_equal(*asked)


@EACH
def test_a_population_of_one_and_a_space_without_dimensions_are_refused(name: str) -> None:
    for wrong in (replace(SETTINGS, population=1), replace(SETTINGS, size=0)):
        with pytest.raises(UserError, match="a population of at least 2 and a search space of at least 1 dimension"):
            make_strategy(name, wrong)


# --- names ---------------------------------------------------------------------------------------------------


def test_an_unknown_strategy_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match="unknown strategy 'nes'; known: cma, ga, openai-es, pepg, sep-cma"):
        make_strategy("nes", SETTINGS)


def test_an_evolution_by_an_unknown_strategy_is_refused_before_anything_is_done() -> None:
    with pytest.raises(UserError, match="unknown strategy 'sepcma'; did you mean 'sep-cma'"):
        phases_of(EvolutionConfig(strategy="sepcma"))


def test_a_strategy_from_elsewhere_evolves_by_its_name(tmp_path: Path) -> None:
    class Still:
        """Asks for the same candidates for ever."""

        def __init__(self, settings: StrategySettings) -> None:
            self.mean, self.sigma = np.zeros(settings.size), settings.sigma
            self._population = settings.population

        def ask(self) -> np.ndarray:
            return np.tile(np.arange(self._population)[:, None] / 10, (1, len(self.mean)))

        def tell(self, fitness: np.ndarray) -> None:
            assert fitness.shape == (self._population,)

    STRATEGIES.register("still", Still)
    try:
        controller, _ = evolve(toy_agent(), toy_phase(toy := Toy(), strategy="still"), tmp_path)
    finally:
        STRATEGIES.unregister("still")
    assert (controller == 0).all()
    assert all(np.array_equal(call[0], np.tile(np.arange(6)[:, None] / 10, (1, 4))) for call in toy.fitness_calls)
