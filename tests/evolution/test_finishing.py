"""Fitness that pays for finishing: what the strategy is told, what is logged, which episodes are repeated."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import tiny
from toy import SETTINGS, SIZE, Toy, toy_agent, toy_phase, without_speed
from worldmodels.cli.main import main
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.core.metrics import read_metrics
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.finishing import Outcome, check_finishing, measured
from worldmodels.evolution.fitness import FinishedFitness, WorldFitness
from worldmodels.evolution.loop import evolve
from worldmodels.evolution.phases import phases_of
from worldmodels.execution.executor import LocalExecutor
from worldmodels.run.presets import preset
from worldmodels.run.variants import evolution_of
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations
from worlds import MAX_STEPS, Goals, Scripted, ends_by_itself, length_of

RETURNS = np.array([[1.0, 8.0, 3.0, 0.5], [2.0, 6.0, 3.0, 9.5]])
FINISHED = np.array([[True, False, True, False], [False, False, True, True]])


def test_the_fitness_of_a_controller_is_its_mean_return_and_a_bonus_for_every_finish() -> None:
    outcome = Outcome(RETURNS, 10, FINISHED)
    np.testing.assert_allclose(outcome.fitness(25.0), [12.5 / 4 + 2 * 25 / 4, 20.5 / 4 + 2 * 25 / 4], rtol=1e-15)
    assert np.array_equal(outcome.fitness(0.0), RETURNS.mean(axis=1)), "the same bits as without the setting"
    assert outcome.shares("x") == {"x": 0.5} and Outcome(RETURNS, 10).shares("x") == {}


def test_the_hardest_are_those_with_the_lowest_returns_or_those_that_the_fewest_finished() -> None:
    outcome, seeds = Outcome(RETURNS, 10, FINISHED), [11, 12, 13, 14]
    assert outcome.hardest(seeds, 3, "lowest") == [11, 13, 14], "mean returns are 1.5, 7, 3 and 5"
    assert outcome.hardest(seeds, 3, "unfinished") == [12, 11, 14], "0, 1 and 1 of 2 have finished them"
    assert outcome.hardest(seeds, 0, "unfinished") == []
    nobody = Outcome(RETURNS, 10, np.zeros_like(FINISHED))
    assert nobody.hardest(seeds, 4, "unfinished") == nobody.hardest(seeds, 4, "lowest")


class Finisher(Toy):
    """The toy's fitness, which also says that an episode is finished if its seed and the controller's bias agree."""

    def with_finished(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int, np.ndarray]:
        returns, done = self(controllers, seeds, steps, patience)
        return returns, done, np.add.outer(controllers[:, 0] > 0.1, np.array(seeds) % 3) % 3 == 1


def told(directory: Path) -> np.ndarray:
    """What the strategy was told, (generations, population)."""
    return np.asarray(load_tensors(directory / "evolution.safetensors")[0]["fitness"])


def test_the_strategy_is_told_the_bonus_while_log_and_validation_stay_returns(tmp_path: Path) -> None:
    toy = Finisher()
    _, metrics = evolve(toy_agent(Goals()), toy_phase(toy, finish_bonus=3.0), tmp_path)
    log = read_metrics(tmp_path / "metrics.csv")
    calls = [call for call in toy.calls if call[3] is not None]
    for generation, (controllers, seeds, steps, patience) in enumerate(calls):
        returns, _, finished = Finisher().with_finished(controllers, seeds, steps, patience)
        wanted = returns.mean(axis=1) + 3.0 * finished.mean(axis=1)
        np.testing.assert_array_equal(told(tmp_path)[generation], wanted)
        assert log["mean"][generation] == returns.mean(axis=1).mean()
        assert log["best"][generation] == returns.mean(axis=1).max()
        assert log["finished"][generation] == finished.mean()
    assert (log["finished"] > 0).any() and (log["finished"] < 1).any()
    validations = [call for call in toy.calls if call[3] is None]
    scores = [Finisher().with_finished(*call) for call in validations]
    measured_at = np.isfinite(log["validation"])
    assert log["validation"][measured_at].tolist() == [returns.mean() for returns, *_ in scores]
    assert log["validation_finished"][measured_at].tolist() == [finished.mean() for *_, finished in scores]
    assert metrics["validation"] == max(returns.mean() for returns, *_ in scores), "the mean return selects"


def test_a_bonus_changes_what_is_evolved_and_none_changes_no_bit(tmp_path: Path) -> None:
    plain = evolve(toy_agent(Scripted()), toy_phase(Toy()), tmp_path / "plain")
    known = evolve(toy_agent(Goals()), toy_phase(Finisher()), tmp_path / "known")
    paid = evolve(toy_agent(Goals()), toy_phase(Finisher(), finish_bonus=3.0), tmp_path / "paid")
    assert torch.equal(plain[0], known[0]) and plain[1] == known[1]
    assert np.array_equal(told(tmp_path / "plain"), told(tmp_path / "known"))
    assert not np.array_equal(told(tmp_path / "plain"), told(tmp_path / "paid"))
    assert not torch.equal(plain[0], paid[0])
    assert "finished" not in read_metrics(tmp_path / "plain" / "metrics.csv")


@pytest.mark.parametrize("dies_at", [2, 5, 9])
def test_a_killed_evolution_with_a_bonus_continues_to_the_same_result(dies_at: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"finish_bonus": 3.0, "hard_episodes": "unfinished", "hard_episode_fraction": 0.5}
    wanted = evolve(toy_agent(Goals()), toy_phase(whole := Finisher(), **settings), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        evolve(toy_agent(Goals()), toy_phase(killed := Finisher(dies_at), **settings), tmp_path / "killed")
    found = evolve(toy_agent(Goals()), toy_phase(rest := Finisher(), **settings), tmp_path / "killed")
    assert torch.equal(found[0], wanted[0]) and found[1] == wanted[1]
    assert without_speed(tmp_path / "killed") == without_speed(tmp_path / "whole")
    assert np.array_equal(told(tmp_path / "killed"), told(tmp_path / "whole"))
    asked = {tuple(seeds) for _, seeds, *_ in killed.calls + rest.calls}
    assert asked == {tuple(seeds) for _, seeds, *_ in whole.calls}


def test_episodes_that_were_not_finished_are_met_again(tmp_path: Path) -> None:
    toy = Finisher()
    phase = toy_phase(toy, hard_episodes="unfinished", hard_episode_fraction=0.67, episodes=4)
    evolve(toy_agent(Goals()), phase, tmp_path)
    calls = [call for call in toy.calls if call[3] is not None]
    for before, after in pairwise(calls):
        returns, _, finished = Finisher().with_finished(*before)
        order = sorted(range(4), key=lambda index: (finished[:, index].mean(), returns[:, index].mean()))
        assert after[1][:2] == [before[1][index] for index in order[:2]]


def test_a_table_of_an_earlier_version_goes_on_with_the_new_columns(tmp_path: Path) -> None:
    evolve(toy_agent(Scripted()), toy_phase(Toy(), generations=4), tmp_path)
    evolve(toy_agent(Goals()), toy_phase(Finisher()), tmp_path)
    log = read_metrics(tmp_path / "metrics.csv")
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6, 7] and np.isfinite(log["mean"]).all()
    assert np.isnan(log["finished"]).tolist() == [True] * 4 + [False] * 3
    assert [path.name for path in tmp_path.glob("metrics.csv*")] == ["metrics.csv"]


# --- in the real world ---------------------------------------------------------------------------------------


class Still:
    """Does nothing, and may begin other episodes."""

    def __init__(self, count: int, controllers: torch.Tensor, seeds: Sequence[int] | None = None) -> None:
        self._actions = np.zeros((count, 2), np.float32)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        return self._actions[rows]

    def begin(self, rows: np.ndarray, episodes: np.ndarray) -> None:
        pass


@pytest.mark.parametrize("max_envs", [2, 4, 100])
def test_the_world_tells_which_candidate_finished_which_episode(max_envs: int) -> None:
    task, seeds = Goals(), [4, 8, 9, 10, 12]
    task.max_envs = max_envs
    fitness = WorldFitness(LocalExecutor(), toy_agent(task, Still), "fast")
    assert isinstance(fitness, FinishedFitness)
    controllers = np.zeros((3, SIZE))
    returns, steps, finished = fitness.with_finished(controllers, seeds, MAX_STEPS)
    # Reward: the seed and an eighth for every step so far; the last whole reward is the seed.
    wanted = [ends_by_itself(seed) and seed % 4 == 0 for seed in seeds]
    assert finished.dtype == bool and finished.tolist() == [wanted] * 3 == [[True, True, False, False, True]] * 3
    assert steps == 3 * sum(map(length_of, seeds))
    again = fitness(controllers, seeds, MAX_STEPS)
    assert np.array_equal(again[0], returns) and again[1] == steps
    outcome = measured(fitness, task, controllers, seeds, 2)
    assert outcome.finished is not None and not outcome.finished.any(), "a limit ended them all"


def test_a_world_without_a_goal_is_asked_for_returns_alone() -> None:
    fitness = WorldFitness(LocalExecutor(), toy_agent(Scripted(), Still), "fast")
    assert measured(fitness, Scripted(), np.zeros((2, SIZE)), [4, 5], MAX_STEPS).finished is None


# --- where it cannot be --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("take-cover", {"finish_bonus": 25.0}, "phases.one.finish-bonus: the episodes of take-cover have no goal; set"),
        ("bin-packing", {"hard_episodes": "unfinished"}, "phases.one.hard-episodes: .* no goal; set it to lowest"),
        ("car-racing", {"finish_bonus": 1.0, "world": "dream"}, "one.finish-bonus: dreams do not tell .*; set it to 0"),
        ("car-racing", {"hard_episodes": "unfinished", "world": "dream"}, "one.hard-episodes: dreams do not tell"),
    ],
)
def test_where_nobody_can_tell_what_is_finished_the_settings_are_refused(
    task: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_finishing([("one", PhaseConfig(**settings))], get_task(task))
    assert "\n" not in str(refused.value)
    check_finishing([("one", PhaseConfig(finish_bonus=25.0, hard_episodes="unfinished"))], get_task("car-racing"))
    check_finishing([("one", PhaseConfig())], get_task(task))


def test_the_command_refuses_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "bin-packing", "--preset", "quick", "--run", str(tmp_path / "run"), *tiny("real")]
    assert main([*words, "--phases", "real", "--evolution.phases.real.finish-bonus", "25"]) != 0
    assert "the episodes of bin-packing have no goal" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_ablation_in_dreams_pays_no_bonus() -> None:
    config = preset("standard", "car-racing").evolution
    phases = {name: replace(phase, finish_bonus=25.0) for name, phase in config.phases.items() if name != "dream"}
    paid: EvolutionConfig = replace(config, phases=config.phases | phases)
    check_finishing(phases_of(paid), get_task("car-racing"))
    dreamt = evolution_of(paid, "dream-only")
    assert {phase.world for _, phase in phases_of(dreamt)} == {"dream"}
    check_finishing(phases_of(dreamt), get_task("car-racing"))
    assert all(phase.finish_bonus == 25.0 for _, phase in phases_of(evolution_of(paid, "untrained-m")))


def test_the_settings_of_before_are_the_default() -> None:
    assert (SETTINGS.finish_bonus, SETTINGS.hard_episodes) == (0.0, "lowest")
