"""Fitness in the real world, and fitness that several kinds of worlds share."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from toy import SIZE, Toy, toy_agent
from worldmodels.evolution.fitness import SharedFitness, WorldFitness
from worldmodels.execution.executor import LocalExecutor
from worldmodels.tasks.base import Observations
from worlds import MAX_STEPS, Scripted, length_of


class FirstParameter:
    """Acts with the first parameter of each row's controller."""

    def __init__(self, count: int, controllers: torch.Tensor, seeds: Sequence[int] | None = None) -> None:
        assert len(controllers) == count and controllers.dtype == torch.float32
        self._gas = controllers[:, 0].numpy()

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        return np.stack([self._gas[rows], np.zeros(len(rows), np.float32)], axis=1)


def test_returns_keep_their_order_over_several_batches_of_environments() -> None:
    agent = toy_agent(task := Scripted(deaths=1), FirstParameter)
    task.max_envs = 4
    controllers = np.zeros((5, SIZE))
    controllers[:, 0] = np.arange(5) / 16
    returns, steps = WorldFitness(LocalExecutor(), agent, "fast")(controllers, [5, 13], MAX_STEPS)
    wanted = [
        [sum(seed + step / 8 + row / 16 for step in range(length_of(seed))) for seed in (5, 13)] for row in range(5)
    ]
    assert returns.tolist() == wanted and steps == 5 * (length_of(5) + length_of(13))
    assert task.made == [(4, "fast"), (4, "fast"), (2, "fast")]  # the first lost a worker


def test_returns_stop_at_the_longest_step() -> None:
    fitness = WorldFitness(LocalExecutor(), toy_agent(None, FirstParameter), "fast")
    returns, steps = fitness(np.zeros((2, SIZE)), [5, 6], 3)
    assert returns.tolist() == [[5 * 3 + 3 / 8, 6 * 3 + 3 / 8]] * 2 and steps == 12


def test_environments_are_kept_from_one_generation_to_the_next() -> None:
    agent = toy_agent(task := Scripted(), FirstParameter)
    fitness = WorldFitness(LocalExecutor(), agent, "fast")
    for _ in range(3):
        fitness(np.zeros((2, SIZE)), [5, 6], 3)
    assert task.made == [(4, "fast")]


class Kind:
    """A kind of world in which a seed is worth ten times itself, and every one of these worlds something more."""

    def __init__(self, more: int) -> None:
        self._more = more

    def __call__(
        self, controllers: np.ndarray, seeds: list[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        assert (steps, patience) == (7, 3) and len(seeds)
        return np.tile(np.array(seeds) * 10.0 + self._more, (len(controllers), 1)), len(seeds)


@pytest.mark.parametrize("seeds", [[1], [1, 2], [1, 2, 3, 4, 5]])
def test_kinds_of_worlds_share_the_episodes_in_turns(seeds: list[int]) -> None:
    returns, steps = SharedFitness([Kind(0), Kind(1), Kind(2)])(np.zeros((4, SIZE)), seeds, 7, 3)
    assert returns.tolist() == [[10 * seed + index % 3 for index, seed in enumerate(seeds)]] * 4
    assert steps == len(seeds)


def test_a_single_kind_of_world_has_all_the_episodes() -> None:
    controllers = np.eye(SIZE)
    wanted, steps = Toy()(controllers, [5, 6, 7], 9)
    found = SharedFitness([Toy()])(controllers, [5, 6, 7], 9)
    assert np.array_equal(found[0], wanted) and found[1] == steps
