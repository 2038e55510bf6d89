"""C: the batched controllers, the evolution strategy, and the evolving."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from worldmodels.agent import Agent
from worldmodels.run.config import ControllerConfig
from worldmodels.evolution.loop import evolve, real_returns
from worldmodels.controller.linear import Controllers, parameter_count
from worldmodels.controller.strategies.cma import CMAES
from worldmodels.core.errors import UserError
from worlds import MAX_STEPS, Scripted, length_of

F, C = 7, 3


# --- controllers ---------------------------------------------------------------------------------------------


def test_a_controller_for_car_racing_has_the_papers_867_parameters() -> None:
    assert parameter_count(32 + 256, 3) == 867


def test_parameters_are_the_biases_and_then_the_weights_feature_by_feature() -> None:
    parameters = torch.linspace(-0.9, 0.9, parameter_count(F, C))
    controllers = Controllers(parameters.expand(F + 1, -1), F, C)
    found = torch.atanh(controllers(torch.cat([torch.zeros(1, F), torch.eye(F)])))
    bias = parameters[:C]
    torch.testing.assert_close(found[0], bias)
    for feature in range(F):
        weights = parameters[C + feature * C : C + (feature + 1) * C]
        torch.testing.assert_close(found[1 + feature] - bias, weights, rtol=1e-4, atol=1e-5)


def test_the_batched_product_equals_one_controller_at_a_time() -> None:
    parameters, features = torch.randn(5, parameter_count(F, C)), torch.randn(5, F)
    batched = Controllers(parameters, F, C)(features)
    for n in range(5):
        alone = Controllers(parameters[n : n + 1], F, C)(features[n : n + 1])
        exact = np.tanh(
            features[n].double().numpy() @ parameters[n, C:].double().numpy().reshape(F, C)
            + parameters[n, :C].double().numpy()
        )
        torch.testing.assert_close(batched[n], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batched[n].numpy(), exact, rtol=1e-5, atol=1e-5)


def test_chosen_rows_use_their_own_controllers_and_a_single_one_drives_all() -> None:
    parameters, features = torch.randn(6, parameter_count(F, C)), torch.randn(6, F)
    everyone, rows = Controllers(parameters, F, C)(features), torch.tensor([1, 4, 5])
    some = Controllers(parameters, F, C)(features[rows], rows)
    torch.testing.assert_close(some, everyone[rows])
    single = Controllers(parameters[:1], F, C)
    torch.testing.assert_close(single(features[rows], rows), single(features)[rows])


def test_parameters_of_another_size_are_refused_with_both_sizes() -> None:
    with pytest.raises(UserError, match=r"\(N, 24\).*got \(2, 23\)"):
        Controllers(torch.zeros(2, 23), F, C)


# --- the strategy --------------------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize("diagonal", [0, -1, 6], ids=["full", "diagonal", "mixed"])


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
def test_it_finds_the_optimum(diagonal: int, function: Callable[[np.ndarray], np.ndarray], needed: int) -> None:
    strategy = CMAES(np.zeros(5), 10, 0.5, diagonal, seed=1)
    generations(strategy, needed, function)
    assert sphere(strategy.mean[None])[0] > -1e-9
    assert strategy.sigma < 1e-2


@KINDS
def test_telling_the_recorded_fitness_again_gives_the_identical_next_candidates(diagonal: int) -> None:
    first = CMAES(np.zeros(12), 8, 0.3, diagonal, seed=5)
    told = generations(first, 15, ellipsoid)
    again = CMAES(np.zeros(12), 8, 0.3, diagonal, seed=5)
    for fitness in told:
        again.tell(fitness)
    assert np.array_equal(first.mean, again.mean) and first.sigma == again.sigma
    for _ in range(5):
        assert np.array_equal(first.ask(), again.ask())
        first.tell(ellipsoid(first.ask()))
        again.tell(ellipsoid(again.ask()))


def test_asking_twice_gives_the_same_candidates_even_if_the_first_were_changed() -> None:
    strategy = CMAES(np.zeros(4), 6, 0.3, 0, seed=1)
    first = strategy.ask()
    wanted = first.copy()
    first += 1
    assert np.array_equal(strategy.ask(), wanted)


def test_a_generation_without_any_number_or_difference_does_no_harm() -> None:
    strategy = CMAES(np.zeros(6), 8, 0.3, 0, seed=2)
    for fitness in (np.full(8, np.nan), np.full(8, -10.0), np.full(8, -np.inf)):
        strategy.tell(fitness)
    assert np.isfinite(strategy.ask()).all() and strategy.sigma < 1.0


@KINDS
def test_numpys_global_random_numbers_are_neither_used_nor_touched(diagonal: int) -> None:
    found = []
    for global_seed in (1, 2):
        np.random.seed(global_seed)
        before = np.random.get_state()[1].tolist()
        strategy = CMAES(np.zeros(6), 8, 0.3, diagonal, seed=3)
        generations(strategy, 12, sphere)
        assert np.random.get_state()[1].tolist() == before
        found.append(strategy.ask())
    assert np.array_equal(*found)


def test_another_seed_gives_other_candidates() -> None:
    assert not np.array_equal(*(CMAES(np.zeros(6), 8, 0.3, 0, seed).ask() for seed in (1, 2)))


@pytest.mark.filterwarnings("ignore")
def test_it_is_plain_pycma_maximising() -> None:
    import cma

    stream = np.random.default_rng([9, 31])
    options = {
        "popsize": 8, "seed": np.nan, "verbose": -9, "CMA_diagonal": 0,
        "randn": lambda *shape: stream.standard_normal(shape),
    }  # fmt: skip
    plain, ours = cma.CMAEvolutionStrategy(np.full(7, 0.2), 0.4, options), CMAES(np.full(7, 0.2), 8, 0.4, 0, 9)
    for _ in range(20):
        candidates = plain.ask()
        assert np.array_equal(np.array(candidates), ours.ask())
        plain.tell(candidates, (-ellipsoid(np.array(candidates))).tolist())
        ours.tell(ellipsoid(ours.ask()))
    np.testing.assert_array_equal(plain.mean, ours.mean)


# --- evolving ------------------------------------------------------------------------------------------------

SIZE, TARGET = 4, np.array([0.5, -0.5, 1.0, 0.0])
CONFIG = ControllerConfig(
    generations=7, population=6, episodes=3, sigma=0.3, horizon=4, horizon_growth=2, patience=5, validate_every=2,
    validation_episodes=5, episodes_growth=0.0, revisit=0.0,
)  # fmt: skip


class Toy:
    """Measures controllers by their distance to TARGET and a little luck of the track; remembers every call."""

    def __init__(self, dies_at: int | None = None, validations: Sequence[float] = ()) -> None:
        self.calls: list[tuple[np.ndarray, list[int], int, int | None]] = []
        self._dies_at, self._validations = dies_at, list(validations)

    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None
    ) -> tuple[np.ndarray, int]:
        if len(self.calls) == self._dies_at:
            raise KeyboardInterrupt
        self.calls.append((controllers.copy(), list(seeds), steps, patience))
        if patience is None and self._validations:
            return np.full((len(controllers), len(seeds)), self._validations.pop(0)), 1
        luck = np.array([[seed % 1000 / 10_000 for seed in seeds]])
        return luck - ((controllers - TARGET) ** 2).sum(axis=1, keepdims=True), 10 * len(seeds) * len(controllers)

    @property
    def fitness_calls(self) -> list[tuple[np.ndarray, list[int], int, int | None]]:
        return [call for call in self.calls if call[3] is not None]

    @property
    def validation_calls(self) -> list[tuple[np.ndarray, list[int], int, int | None]]:
        return [call for call in self.calls if call[3] is None]


def toy_agent(task: Any = None, policy: Any = None) -> Agent:
    """What evolve needs of an agent."""
    whole = {"controller": torch.zeros(SIZE), "task": task or Scripted(), "policy": policy, "info": {}}
    return cast(Agent, SimpleNamespace(**whole, part=lambda name: slice(0)))


def without_speed(directory: Path) -> list[str]:
    """metrics.csv without its one column that no two processes share."""
    lines = (directory / "metrics.csv").read_text().splitlines()
    speed = lines[0].split(",").index("steps_per_s")
    return [",".join(cell for i, cell in enumerate(line.split(",")) if i != speed) for line in lines]


def test_evolution_climbs_and_returns_a_better_controller(tmp_path: Path) -> None:
    controller, metrics = evolve(toy_agent(), CONFIG, 1, tmp_path, Toy())
    assert controller.shape == (SIZE,) and controller.dtype == torch.float32
    assert ((controller.numpy() - TARGET) ** 2).sum() < 0.5 * (TARGET**2).sum()
    assert metrics["validation"] > -0.7


def test_all_candidates_of_a_generation_meet_the_same_new_tracks(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), CONFIG, 1, tmp_path, toy)
    assert len(toy.fitness_calls) == 7
    tracks = []
    for controllers, seeds, _, _ in toy.fitness_calls:
        assert len(set(seeds)) == len(seeds) == 3
        assert len(np.unique(controllers, axis=0)) == len(controllers) == 6
        tracks += seeds
    assert len(set(tracks)) == 7 * 3, "a track was used in two generations"


def test_the_tracks_that_went_worst_are_met_again_in_the_next_generation(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), replace(CONFIG, revisit=0.34), 1, tmp_path, toy)
    tracks = [seeds for _, seeds, _, _ in toy.fitness_calls]
    for before, after in pairwise(tracks):
        assert len(set(after)) == 3 and after[0] == min(before, key=lambda seed: seed % 1000)
        assert not set(after[1:]) & set(before)
    killed = Toy(dies_at=5)
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), replace(CONFIG, revisit=0.34), 1, tmp_path / "killed", killed)
    evolve(toy_agent(), replace(CONFIG, revisit=0.34), 1, tmp_path / "killed", rest := Toy())
    # The generation whose validation was cut off is measured again.
    assert [seeds for _, seeds, _, _ in killed.fitness_calls[:-1] + rest.fitness_calls] == tracks


def test_tracks_grow_with_the_generations(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), replace(CONFIG, episodes_growth=0.5), 1, tmp_path, toy)
    assert [len(seeds) for _, seeds, _, _ in toy.fitness_calls] == [3, 3, 4, 4, 5, 5, 6]


def test_validation_has_tracks_of_its_own_the_same_every_time(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), CONFIG, 1, tmp_path, toy)
    assert len(toy.validation_calls) == 4  # after generations 2, 4, 6 and the last, 7
    first = toy.validation_calls[0][1]
    assert all(seeds == first for _, seeds, _, _ in toy.validation_calls) and len(set(first)) == 5
    assert not set(first) & {seed for _, seeds, _, _ in toy.fitness_calls for seed in seeds}


def test_fitness_episodes_grow_and_validation_episodes_are_whole(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), CONFIG, 1, tmp_path, toy)
    assert [steps for _, _, steps, _ in toy.fitness_calls] == [4, 6, 8, 10, 10, 10, 10]
    assert all(patience == 5 for _, _, _, patience in toy.fitness_calls)
    assert all(steps == MAX_STEPS for _, _, steps, _ in toy.validation_calls)
    for controllers, *_ in toy.validation_calls:
        assert len(controllers) == 1, "validation is of the mean, not of candidates"


def test_the_mean_with_the_best_validation_is_returned_and_not_the_last(tmp_path: Path) -> None:
    toy = Toy(validations=[1.0, 5.0, 3.0, 4.0])
    controller, metrics = evolve(toy_agent(), CONFIG, 1, tmp_path, toy)
    assert metrics["validation"] == 5.0 and metrics["best_generation"] == 4.0
    np.testing.assert_array_equal(controller.numpy(), toy.validation_calls[1][0][0].astype(np.float32))


def test_a_controller_that_nobody_beat_is_given_back(tmp_path: Path) -> None:
    agent = toy_agent()
    agent.controller = torch.from_numpy(TARGET).float()
    toy = Toy(validations=[4.0, 1.0, 3.0, 2.0, 3.0])
    controller, metrics = evolve(agent, CONFIG, 1, tmp_path, toy)
    assert torch.equal(controller, agent.controller) and (metrics["validation"], metrics["best_generation"]) == (4.0, 0)
    np.testing.assert_allclose(toy.validation_calls[0][0][0], TARGET, rtol=1e-6)
    assert len({tuple(seeds) for _, seeds, *_ in toy.validation_calls}) == 1, "all are validated on the same tracks"


def test_the_best_means_meet_in_finals_and_the_best_over_all_episodes_wins(tmp_path: Path) -> None:
    config = replace(CONFIG, finalists=3, final_episodes=15)
    # Validated after generations 2, 4, 6 and 7; then the second, the fourth and the third, with 15 episodes for 5.
    results = [1.0, 5.0, 3.0, 4.0, 2.0, 3.4, 3.6]
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), config, 1, tmp_path, killed := Toy(dies_at=12, validations=results))
    rest = Toy(validations=results[5:])
    controller, metrics = evolve(toy_agent(), config, 1, tmp_path, rest)
    calls = killed.validation_calls + rest.validation_calls
    assert len(killed.validation_calls) == 5 and len(rest.calls) == 2, "what was scored is not scored again"
    for place, call in zip((1, 3, 2), calls[4:], strict=True):
        np.testing.assert_array_equal(call[0], calls[place][0])
        assert call[1] == calls[4][1] and len(set(call[1])) == 15 and not set(call[1]) & set(calls[0][1])
    assert (metrics["validation"], metrics["best_generation"]) == (pytest.approx((5 * 4.0 + 15 * 3.4) / 20), 7.0)
    np.testing.assert_array_equal(controller.numpy(), calls[3][0][0].astype(np.float32))
    again = evolve(toy_agent(), config, 1, tmp_path, idle := Toy())
    assert torch.equal(again[0], controller) and again[1] == metrics and idle.calls == []


@pytest.mark.parametrize("dies_at", [0, 2, 5, 9])
def test_a_killed_evolution_continues_to_the_same_result(tmp_path: Path, dies_at: int) -> None:
    wanted = evolve(toy_agent(), CONFIG, 1, tmp_path / "whole", Toy())
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), CONFIG, 1, tmp_path / "killed", Toy(dies_at))
    found = evolve(toy_agent(), CONFIG, 1, tmp_path / "killed", rest := Toy())
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]
    assert without_speed(tmp_path / "killed") == without_speed(tmp_path / "whole")
    assert len(rest.calls) >= 11 - dies_at and len(rest.calls) <= 12 - dies_at, "it began anew"


def test_more_generations_continue_where_fewer_ended(tmp_path: Path) -> None:
    wanted = evolve(toy_agent(), CONFIG, 1, tmp_path / "whole", Toy())
    evolve(toy_agent(), replace(CONFIG, generations=4), 1, tmp_path / "grown", Toy())
    found = evolve(toy_agent(), CONFIG, 1, tmp_path / "grown", rest := Toy())
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1] and len(rest.fitness_calls) == 3


def test_a_finished_evolution_measures_nothing_again(tmp_path: Path) -> None:
    wanted = evolve(toy_agent(), CONFIG, 1, tmp_path, Toy())
    found = evolve(toy_agent(), CONFIG, 1, tmp_path, again := Toy())
    assert torch.equal(found[0], wanted[0]) and again.calls == []


def test_fewer_generations_than_were_evolved_are_refused(tmp_path: Path) -> None:
    evolve(toy_agent(), replace(CONFIG, generations=2), 1, tmp_path, Toy())
    with pytest.raises(UserError, match="seen 2 generations; expected at least as many, got 1"):
        evolve(toy_agent(), replace(CONFIG, generations=1), 1, tmp_path, Toy())


def test_a_checkpoint_of_another_population_is_refused(tmp_path: Path) -> None:
    evolve(toy_agent(), replace(CONFIG, generations=1), 1, tmp_path, Toy())
    with pytest.raises(UserError, match="another population"):
        evolve(toy_agent(), replace(CONFIG, population=8), 1, tmp_path, Toy())


class FirstParameter:
    """Acts with the first parameter of each row's controller."""

    def __init__(self, count: int, controllers: torch.Tensor) -> None:
        assert len(controllers) == count and controllers.dtype == torch.float32
        self._gas = controllers[:, 0].numpy()

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._gas[rows], np.zeros(len(rows), np.float32)], axis=1)


def test_real_returns_keep_their_order_over_several_batches_of_environments() -> None:
    agent = toy_agent(task := Scripted(deaths=1), FirstParameter)
    task.at_once = 4
    controllers = np.zeros((5, SIZE))
    controllers[:, 0] = np.arange(5) / 16
    returns, steps = real_returns(agent, "fast")(controllers, [5, 13], MAX_STEPS, None)
    wanted = [
        [sum(seed + step / 8 + row / 16 for step in range(length_of(seed))) for seed in (5, 13)] for row in range(5)
    ]
    assert returns.tolist() == wanted and steps == 5 * (length_of(5) + length_of(13))
    assert task.made == [(4, "fast"), (4, "fast"), (2, "fast")]  # the first lost a worker


def test_real_returns_stop_at_the_horizon() -> None:
    returns, steps = real_returns(toy_agent(None, FirstParameter), "fast")(np.zeros((2, SIZE)), [5, 6], 3, None)
    assert returns.tolist() == [[5 * 3 + 3 / 8, 6 * 3 + 3 / 8]] * 2 and steps == 12


def test_the_step_size_is_held_and_then_decays() -> None:
    plain, held = (CMAES(np.zeros(4), 6, 0.3, -1, 1, decay, 3) for decay in (1.0, 0.5))
    ratios = []
    for _ in range(6):
        ratios.append(held.sigma / plain.sigma)
        fitness = -(held.ask() ** 2).sum(axis=1)
        for strategy in (plain, held):
            strategy.ask()
            strategy.tell(fitness)
    assert ratios[:4] == [1.0] * 4
    assert ratios[4] == pytest.approx(0.5) and ratios[5] < 0.5
