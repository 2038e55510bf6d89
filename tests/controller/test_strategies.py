"""The strategies behind ask and tell: each climbs, repeats itself exactly, and PEPG follows its equations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.test_controller import CONFIG, Toy, sphere, toy_agent

from worldmodels.run.config import Config, ControllerConfig, check, from_json, polishing, to_json
from worldmodels.evolution.loop import evolve
from worldmodels.controller.strategies.pepg import PEPG, centred_ranks
from worldmodels.controller.strategies.cma import CMAES, Strategy, make_strategy
from worldmodels.core.errors import UserError

SETTINGS = ControllerConfig(population=12, sigma=0.1, sigma_decay=0.99, sigma_hold=40, lr=0.1, weight_decay=0.0)
STRATEGIES = pytest.mark.parametrize("name", ["cma", "sep-cma", "pepg"])


def strategy(name: str, size: int = 5, seed: int = 1) -> Strategy:
    return make_strategy(replace(SETTINGS, strategy=name), size, seed)


def rosenbrock(x: np.ndarray) -> np.ndarray:
    """Negative, with its optimum of 0 at (1, ..., 1)."""
    return -(100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(axis=1)


@STRATEGIES
def test_every_strategy_climbs_a_quadratic_in_a_few_hundred_evaluations(name: str) -> None:
    found = strategy(name)
    for _ in range(40):
        found.tell(sphere(found.ask()))
    assert sphere(found.mean[None])[0] > -0.05, "it began at -5"


@STRATEGIES
def test_every_strategy_finds_the_bent_valley_of_rosenbrock(name: str) -> None:
    found = strategy(name, size=2)
    for _ in range(60):
        found.tell(rosenbrock(found.ask()))
    assert rosenbrock(found.mean[None])[0] > -0.3, "it began at -1, and on the valley's floor there is little slope"


@STRATEGIES
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


@STRATEGIES
@pytest.mark.parametrize("population", [2, 7, 12])
def test_the_population_has_the_size_that_was_asked_for(name: str, population: int) -> None:
    found = make_strategy(replace(SETTINGS, strategy=name, population=population), 3, 1)
    for _ in range(3):
        candidates = found.ask()
        assert candidates.shape == (population, 3)
        assert np.array_equal(candidates, found.ask())
        candidates += 1
        assert not np.array_equal(candidates, found.ask())
        found.tell(sphere(found.ask()))


@STRATEGIES
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


def test_cma_is_what_it_always_was_and_sep_cma_is_diagonal_whatever_diagonal_says() -> None:
    settings = replace(SETTINGS, diagonal=3)
    for name, diagonal in (("cma", 3), ("sep-cma", -1)):
        made = make_strategy(replace(settings, strategy=name), 5, 9)
        plain = CMAES(np.zeros(5), 12, 0.1, diagonal, 9, 0.99, 40)
        for _ in range(45):
            assert np.array_equal(made.ask(), plain.ask())
            made.tell(sphere(made.ask()))
            plain.tell(sphere(plain.ask()))


@STRATEGIES
def test_a_killed_evolution_continues_to_the_same_result(name: str, tmp_path: Path) -> None:
    config = replace(CONFIG, strategy=name)
    wanted = evolve(toy_agent(), config, 1, tmp_path / "whole", Toy())
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), config, 1, tmp_path / "killed", Toy(5))
    found = evolve(toy_agent(), config, 1, tmp_path / "killed", Toy())
    assert found[0].equal(wanted[0]) and found[1] == wanted[1]


# --- PEPG ----------------------------------------------------------------------------------------------------


def test_candidates_come_in_mirrored_pairs_and_an_odd_one_is_the_mean() -> None:
    found = PEPG(np.arange(4.0), 7, 0.2, seed=3)
    candidates = found.ask()
    np.testing.assert_allclose((candidates[:3] + candidates[3:6]) / 2, np.tile(found.mean, (3, 1)), atol=1e-12)
    np.testing.assert_array_equal(candidates[6], np.arange(4.0))
    spread = PEPG(np.zeros(3), 4000, 0.2, seed=3).ask().std(axis=0)
    np.testing.assert_allclose(spread, 0.2, rtol=0.05)


def test_ranks_go_from_minus_to_plus_a_half_and_equals_share_theirs() -> None:
    np.testing.assert_allclose(centred_ranks(np.array([10.0, -3.0, 2.0, 2.5])), [0.5, -0.5, -1 / 6, 1 / 6])
    np.testing.assert_allclose(centred_ranks(np.array([1.0, 1.0, 5.0])), [-0.25, -0.25, 0.5])
    np.testing.assert_allclose(centred_ranks(np.array([np.nan, 1.0, np.inf])), [-0.25, 0.5, -0.25])
    np.testing.assert_allclose(centred_ranks(np.full(6, 7.0)), 0)


@pytest.mark.parametrize("population", [6, 7])
def test_one_generation_is_the_equations_of_the_paper(population: int) -> None:
    start, sigma, decay, lr, weight_decay = np.array([0.5, -1.0, 2.0]), 0.3, 0.9, 0.05, 0.1
    found = PEPG(start, population, sigma, 4, lr, weight_decay, decay)
    candidates = found.ask()
    fitness = np.array([3.0, -1.0, 4.0, 1.5, -9.0, 2.0, 6.0])[:population]
    shaped = np.argsort(np.argsort(fitness)) / (population - 1) - 0.5
    shaped = shaped - weight_decay * (candidates**2).mean(axis=1)
    found.tell(fitness)
    baseline = shaped[6] if population == 7 else np.mean(shaped)
    slope_mean, slope_sigma = np.zeros(3), np.zeros(3)
    for pair in range(3):
        noise, up, down = candidates[pair] - start, shaped[pair], shaped[pair + 3]
        slope_mean += noise * (up - down) / 2
        slope_sigma += (noise**2 - sigma**2) / sigma * ((up + down) / 2 - baseline) / 3
    # Adam's first step is the sign of the gradient.
    np.testing.assert_allclose(found.mean, start + lr * np.sign(slope_mean), rtol=1e-5)
    wanted = sigma + np.clip(0.2 * slope_sigma, -0.2 * sigma, 0.2 * sigma)
    np.testing.assert_allclose(found.sigmas, wanted * decay, rtol=1e-12)


def test_a_coordinate_that_matters_gets_small_steps_and_an_idle_one_keeps_its_own() -> None:
    found = PEPG(np.zeros(2), 40, 0.3, 5, lr=0.01, weight_decay=0.0)
    for _ in range(60):
        found.tell(-(found.ask()[:, 0] ** 2))
    assert found.sigmas[0] < 0.5 * found.sigmas[1]


def test_the_decay_begins_after_the_hold_and_stops_at_its_limit() -> None:
    found, equal = PEPG(np.zeros(3), 8, 0.1, 5, decay=0.5, hold=2, weight_decay=0.0), np.zeros(8)
    sigmas = []
    for _ in range(6):
        found.tell(equal)
        sigmas.append(found.sigma)
    np.testing.assert_allclose(sigmas, [0.1, 0.1, 0.05, 0.025, 0.02, 0.02])
    small = PEPG(np.zeros(3), 8, 0.01, 5, decay=0.5)
    small.tell(equal)
    assert small.sigma == pytest.approx(0.01), "the limit never makes steps larger"


def test_a_generation_without_any_difference_moves_nothing() -> None:
    found = PEPG(np.ones(4), 6, 0.2, 1, weight_decay=0.0)
    for fitness in (np.full(6, -10.0), np.full(6, np.nan)):
        found.tell(fitness)
    np.testing.assert_array_equal(found.mean, np.ones(4))


def test_weight_decay_alone_leads_towards_zero() -> None:
    found = PEPG(np.full(4, 2.0), 10, 0.1, 1, lr=0.05)
    for _ in range(20):
        found.tell(np.zeros(10))
    assert (found.mean < 1.5).all() and (found.mean > 0).all()


def test_numpys_global_random_numbers_are_neither_used_nor_touched() -> None:
    asked = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)
        before = np.random.get_state()[1].tolist()
        asked.append(PEPG(np.zeros(3), 6, 0.1, 1).ask())
        assert np.random.get_state()[1].tolist() == before
    assert np.array_equal(*asked)


# --- settings ------------------------------------------------------------------------------------------------


def test_an_unknown_strategy_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"--controller\.strategy must be one of cma, sep-cma, pepg, got 'ga'"):
        check(Config(controller=ControllerConfig(strategy="ga")))


def test_a_configuration_from_before_there_was_a_choice_means_cma() -> None:
    content = to_json(Config())
    for name in ("strategy", "lr", "weight_decay"):
        del content["controller"][name]
    assert from_json(content) == Config() and Config().controller.strategy == "cma"


def test_polishing_keeps_the_strategy_and_takes_smaller_steps() -> None:
    last = polishing(ControllerConfig(strategy="pepg"), 1000)
    assert last.strategy == "pepg" and last.lr < ControllerConfig().lr
