"""Evolving in one phase: its episodes, its validations, its checkpoint."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from toy import SETTINGS, SIZE, TARGET, Toy, toy_agent, toy_phase, without_speed
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.core.seeds import episode_seeds
from worldmodels.evolution.loop import _Mean, _State, evolve
from worldmodels.evolution.subspace import whole_space
from worlds import MAX_STEPS


def test_evolution_climbs_and_returns_a_better_controller(tmp_path: Path) -> None:
    controller, metrics = evolve(toy_agent(), toy_phase(Toy()), tmp_path)
    assert controller.shape == (SIZE,) and controller.dtype == torch.float32
    assert ((controller.numpy() - TARGET) ** 2).sum() < 0.5 * (TARGET**2).sum()
    assert metrics["validation"] > -0.7


def test_all_candidates_of_a_generation_meet_the_same_new_episodes(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), toy_phase(toy), tmp_path)
    assert len(toy.fitness_calls) == 7
    episodes = []
    for controllers, seeds, _, _ in toy.fitness_calls:
        assert len(set(seeds)) == len(seeds) == 3
        assert len(np.unique(controllers, axis=0)) == len(controllers) == 6
        episodes += seeds
    assert len(set(episodes)) == 7 * 3, "an episode was used in two generations"


def test_the_episodes_that_went_worst_are_met_again_in_the_next_generation(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), toy_phase(toy, hard_episode_fraction=0.34), tmp_path)
    episodes = [seeds for _, seeds, _, _ in toy.fitness_calls]
    for before, after in pairwise(episodes):
        assert len(set(after)) == 3 and after[0] == min(before, key=lambda seed: seed % 1000)
        assert not set(after[1:]) & set(before)
    killed = Toy(dies_at=5)
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), toy_phase(killed, hard_episode_fraction=0.34), tmp_path / "killed")
    evolve(toy_agent(), toy_phase(rest := Toy(), hard_episode_fraction=0.34), tmp_path / "killed")
    # The generation whose validation was cut off is measured again.
    assert [seeds for _, seeds, _, _ in killed.fitness_calls[:-1] + rest.fitness_calls] == episodes


def test_episodes_grow_with_the_generations(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), toy_phase(toy, episodes_growth=0.5), tmp_path)
    assert [len(seeds) for _, seeds, _, _ in toy.fitness_calls] == [3, 3, 4, 4, 5, 5, 6]


def test_validation_has_episodes_of_its_own_the_same_every_time(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), toy_phase(toy), tmp_path)
    assert len(toy.validation_calls) == 4  # after generations 2, 4, 6 and the last, 7
    first = toy.validation_calls[0][1]
    assert all(seeds == first for _, seeds, _, _ in toy.validation_calls) and len(set(first)) == 5
    assert not set(first) & {seed for _, seeds, _, _ in toy.fitness_calls for seed in seeds}


def test_fitness_episodes_get_longer_and_validation_episodes_are_whole(tmp_path: Path) -> None:
    toy = Toy()
    evolve(toy_agent(), toy_phase(toy), tmp_path)
    assert [steps for _, _, steps, _ in toy.fitness_calls] == [4, 6, 8, 10, 10, 10, 10]
    assert all(patience == 5 for _, _, _, patience in toy.fitness_calls)
    assert all(steps == MAX_STEPS for _, _, steps, _ in toy.validation_calls)
    for controllers, *_ in toy.validation_calls:
        assert len(controllers) == 1, "validation is of the mean, not of candidates"


def test_the_mean_with_the_best_validation_is_returned_and_not_the_last(tmp_path: Path) -> None:
    toy = Toy(validations=[1.0, 5.0, 3.0, 4.0])
    controller, metrics = evolve(toy_agent(), toy_phase(toy), tmp_path)
    assert metrics["validation"] == 5.0 and metrics["best_generation"] == 4.0
    np.testing.assert_array_equal(controller.numpy(), toy.validation_calls[1][0][0].astype(np.float32))


def test_a_controller_that_nobody_beat_is_given_back(tmp_path: Path) -> None:
    agent = toy_agent()
    agent.controller = torch.from_numpy(TARGET).float()
    toy = Toy(validations=[4.0, 1.0, 3.0, 2.0, 3.0])
    controller, metrics = evolve(agent, toy_phase(toy), tmp_path)
    assert torch.equal(controller, agent.controller) and (metrics["validation"], metrics["best_generation"]) == (4.0, 0)
    np.testing.assert_allclose(toy.validation_calls[0][0][0], TARGET, rtol=1e-6)
    assert len({tuple(seeds) for _, seeds, *_ in toy.validation_calls}) == 1, "all are validated on the same episodes"


def test_the_best_means_are_reevaluated_and_the_best_over_all_episodes_wins(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"reevaluate_top_k": 3, "reevaluation_episodes": 15}
    # Validated after generations 2, 4, 6 and 7; then the second, the fourth and the third, with 15 episodes for 5.
    results = [1.0, 5.0, 3.0, 4.0, 2.0, 3.4, 3.6]
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), toy_phase(killed := Toy(dies_at=12, validations=results), **settings), tmp_path)
    rest = Toy(validations=results[5:])
    controller, metrics = evolve(toy_agent(), toy_phase(rest, **settings), tmp_path)
    calls = killed.validation_calls + rest.validation_calls
    assert len(killed.validation_calls) == 5 and len(rest.calls) == 2, "what was scored is not scored again"
    for place, call in zip((1, 3, 2), calls[4:], strict=True):
        np.testing.assert_array_equal(call[0], calls[place][0])
        assert call[1] == calls[4][1] and len(set(call[1])) == 15 and not set(call[1]) & set(calls[0][1])
    assert (metrics["validation"], metrics["best_generation"]) == (pytest.approx((5 * 4.0 + 15 * 3.4) / 20), 7.0)
    np.testing.assert_array_equal(controller.numpy(), calls[3][0][0].astype(np.float32))
    again = evolve(toy_agent(), toy_phase(idle := Toy(), **settings), tmp_path)
    assert torch.equal(again[0], controller) and again[1] == metrics and idle.calls == []


@pytest.mark.parametrize("dies_at", [0, 2, 5, 9])
def test_a_killed_evolution_continues_to_the_same_result(tmp_path: Path, dies_at: int) -> None:
    wanted = evolve(toy_agent(), toy_phase(Toy()), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(), toy_phase(Toy(dies_at)), tmp_path / "killed")
    found = evolve(toy_agent(), toy_phase(rest := Toy()), tmp_path / "killed")
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]
    assert without_speed(tmp_path / "killed") == without_speed(tmp_path / "whole")
    assert len(rest.calls) >= 11 - dies_at and len(rest.calls) <= 12 - dies_at, "it began anew"


def test_more_generations_continue_where_fewer_ended(tmp_path: Path) -> None:
    wanted = evolve(toy_agent(), toy_phase(Toy()), tmp_path / "whole")
    evolve(toy_agent(), toy_phase(Toy(), generations=4), tmp_path / "grown")
    found = evolve(toy_agent(), toy_phase(rest := Toy()), tmp_path / "grown")
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1] and len(rest.fitness_calls) == 3


def test_a_finished_evolution_measures_nothing_again(tmp_path: Path) -> None:
    wanted = evolve(toy_agent(), toy_phase(Toy()), tmp_path)
    found = evolve(toy_agent(), toy_phase(again := Toy()), tmp_path)
    assert torch.equal(found[0], wanted[0]) and again.calls == []


def test_fewer_generations_than_were_evolved_are_refused(tmp_path: Path) -> None:
    evolve(toy_agent(), toy_phase(Toy(), generations=2), tmp_path)
    with pytest.raises(UserError, match="holds 2 generations; expected a setting of at least 2, got 1"):
        evolve(toy_agent(), toy_phase(Toy(), generations=1), tmp_path)


def test_a_checkpoint_of_another_population_is_refused(tmp_path: Path) -> None:
    evolve(toy_agent(), toy_phase(Toy(), generations=1), tmp_path)
    with pytest.raises(UserError, match="another population"):
        evolve(toy_agent(), toy_phase(Toy(), population=8), tmp_path)


def test_episodes_are_as_long_as_the_task_says_where_no_length_is_set(tmp_path: Path) -> None:
    evolve(toy_agent(), toy_phase(toy := Toy(), max_steps=0), tmp_path)
    assert {steps for _, _, steps, _ in toy.fitness_calls} == {MAX_STEPS}


# --- phases --------------------------------------------------------------------------------------------------


def test_the_first_phase_has_the_seeds_from_before_there_were_phases_and_later_ones_have_others(
    tmp_path: Path,
) -> None:
    found = {}
    for number in (0, 1, 2):
        evolve(toy_agent(), toy_phase(toy := Toy(), number=number), tmp_path / str(number))
        found[number] = [seeds for _, seeds, _, _ in toy.fitness_calls]
        assert toy_phase(toy, number=number).seeds("validation", 5) == toy.validation_calls[0][1]
    assert found[0] == [episode_seeds("fitness", 1, 3, generation) for generation in range(7)]
    assert toy_phase(Toy()).seeds("validation", 5) == episode_seeds("validation", 1, 5)
    assert toy_phase(Toy()).seeds("reevaluation", 5) == episode_seeds("reevaluation", 1, 5)
    flat = [seed for seeds in found.values() for some in seeds for seed in some]
    flat += [seed for number in found for seed in toy_phase(Toy(), number=number).seeds("validation", 5)]
    assert len(set(flat)) == len(flat) == 3 * (7 * 3 + 5)


def test_another_phase_asks_other_candidates(tmp_path: Path) -> None:
    first, second = Toy(), Toy()
    evolve(toy_agent(), toy_phase(first, number=0), tmp_path / "first")
    evolve(toy_agent(), toy_phase(second, number=1), tmp_path / "second")
    assert not np.isclose(first.fitness_calls[0][0], second.fitness_calls[0][0]).any()


@pytest.mark.parametrize(("warm_start_sigma", "wanted"), [(0.0, 0.3), (0.01, 0.01)])
def test_candidates_spread_by_the_warm_start_sigma_around_an_evolved_controller_alone(
    warm_start_sigma: float, wanted: float, tmp_path: Path
) -> None:
    def spread(controller: torch.Tensor, name: str) -> float:
        agent, toy = toy_agent(), Toy()
        agent.controller = controller
        evolve(agent, toy_phase(toy, population=400, generations=1, warm_start_sigma=warm_start_sigma), tmp_path / name)
        return float((toy.fitness_calls[0][0] - controller.numpy()).std())

    assert spread(torch.zeros(SIZE), "cold") == pytest.approx(0.3, rel=0.1)
    assert spread(torch.from_numpy(TARGET).float(), "warm") == pytest.approx(wanted, rel=0.1)


def test_a_checkpoint_that_started_from_another_controller_is_begun_anew(tmp_path: Path) -> None:
    agent = toy_agent()
    agent.controller = torch.from_numpy(TARGET).float()
    wanted = evolve(agent, toy_phase(Toy()), tmp_path / "whole")
    evolve(toy_agent(), toy_phase(Toy()), tmp_path / "again")
    found = evolve(agent, toy_phase(again := Toy()), tmp_path / "again")
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]
    assert len(again.fitness_calls) == SETTINGS.generations
    assert without_speed(tmp_path / "again") == without_speed(tmp_path / "whole")


def test_one_that_is_begun_anew_may_have_fewer_generations(tmp_path: Path) -> None:
    evolve(toy_agent(), toy_phase(Toy()), tmp_path)
    agent = toy_agent()
    agent.controller = torch.from_numpy(TARGET).float()
    evolve(agent, toy_phase(again := Toy(), generations=2), tmp_path)
    assert len(again.fitness_calls) == 2


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path: Path) -> None:
    evolve(toy_agent(), toy_phase(Toy(), identity="one"), tmp_path)
    with pytest.raises(UserError, match=r"evolution\.safetensors belongs to another .*delete it"):
        evolve(toy_agent(), toy_phase(Toy(), identity="other"), tmp_path)
    evolve(toy_agent(), toy_phase(again := Toy(), identity="one"), tmp_path)
    assert again.calls == []


def test_a_checkpoint_remembers_where_it_started(tmp_path: Path) -> None:
    agent = toy_agent()
    agent.controller = torch.from_numpy(TARGET).float()
    evolve(agent, toy_phase(Toy()), tmp_path)
    tensors, _ = load_tensors(tmp_path / "evolution.safetensors")
    np.testing.assert_array_equal(tensors["start"].numpy(), TARGET.astype(np.float32))


class Broken(Toy):
    """Its returns are not finite at one of its calls, for fitness or for a validation."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self._broken_at, self._value = at, value

    def __call__(self, controllers: np.ndarray, *rest: Any, **options: Any) -> tuple[np.ndarray, int]:
        returns, steps = super().__call__(controllers, *rest, **options)
        if len(self.calls) == self._broken_at:
            returns[-1, -1] = self._value
        return returns, steps


# Calls: generations 1 and 2, the validation after 2, generations 3 and 4, the validation after 4, and so on.
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("at", "where", "kept"),
    [(5, "generation 4 has", 3), (6, "validation after generation 4 has", 3), (12, "reevaluation of the mean", 7)],
)
def test_returns_that_are_not_finite_stop_the_evolution_and_are_never_saved(
    at: int, where: str, kept: int, value: float, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"reevaluate_top_k": 2, "reevaluation_episodes": 15}
    with pytest.raises(UserError, match=rf"{where}.* 1 of [0-9]+ returns that are NaN or infinite"):
        evolve(toy_agent(), toy_phase(Broken(at, value), **settings), tmp_path / "broken")
    tensors, _ = load_tensors(tmp_path / "broken" / "evolution.safetensors")
    assert len(tensors["fitness"]) == kept and tensors["fitness"].isfinite().all()
    assert tensors["scores"][:, :2].isfinite().all()
    found = evolve(toy_agent(), toy_phase(Toy(), **settings), tmp_path / "broken")
    wanted = evolve(toy_agent(), toy_phase(Toy(), **settings), tmp_path / "whole")
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]


def test_a_checkpoint_with_fitness_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    evolve(toy_agent(), toy_phase(Toy()), tmp_path)
    path = tmp_path / "evolution.safetensors"
    tensors, meta = load_tensors(path)
    tensors["fitness"][2, 1] = np.nan
    save_tensors(path, tensors, meta)
    with pytest.raises(UserError, match=r"evolution.safetensors holds numbers that are not finite; delete it"):
        evolve(toy_agent(), toy_phase(Toy()), tmp_path)


def test_a_score_that_is_not_a_number_is_never_the_best() -> None:
    means = [_Mean(generation, np.zeros(2), score) for generation, score in enumerate([1.0, np.nan, 3.0, np.nan])]
    best, score = _State(whole_space(np.zeros(SIZE), 1), [], means, []).best(toy_phase(Toy()).settings)
    assert (best.generation, score) == (2, 3.0)
