"""Later rounds with less noise, and with none in some episodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from worldmodels.agent import Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.data.collectors import agent_collector
from worldmodels.data.noise import Perturbed, check_noise, noise_free_episodes
from worldmodels.execution.executor import LocalExecutor
from worldmodels.run.config import Config
from worldmodels.run.run import check_settings
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations, Policy
from worlds import MAX_STEPS, Diarist, Scripted, action_at, length_of


class Noise:
    """Adds an eighth to every action, and to that of an odd row a quarter."""

    def __init__(self, policy: Policy, seeds: Sequence[int]) -> None:
        self._policy, self._more = policy, np.array([0.25 if seed % 2 else 0.125 for seed in seeds], np.float32)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        actions = self._policy.act(observations, rows)
        actions += self._more[rows, None]  # in place, as a policy may
        return actions


class Noisy(Scripted):
    """The scripted world with noise that is known."""

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        return Noise(policy, seeds)


class Player:
    """Of an agent what collecting needs; the diarist plays."""

    def __init__(self, task: Scripted) -> None:
        self.task = task

    def policy(self, count: int, seeds: Sequence[int]) -> Policy:
        assert count == len(seeds)
        return Diarist()


SEEDS = list(range(20, 28))


def played(noise: float, noise_free: float, seeds: Sequence[int] = SEEDS) -> list[np.ndarray]:
    """What the noise made of each action, in steps of an eighth, of every episode."""
    agent: Any = Player(Noisy())
    collector = agent_collector(LocalExecutor(), agent, noise, noise_free)
    episodes = collector.record(0, "fast", seeds, MAX_STEPS)
    assert [episode.seed for episode in episodes] == list(seeds)
    assert [len(episode.actions) for episode in episodes] == [length_of(seed) for seed in seeds]
    own = [
        np.stack([2 * action_at(seed, step) for step in range(length_of(seed))]) for seed in seeds
    ]  # what M sees is twice the action
    return [(episode.actions - one) / 0.25 for episode, one in zip(episodes, own, strict=True)]


def test_usual_noise_is_that_of_the_task() -> None:
    for seed, made in zip(SEEDS, played(1.0, 0.0), strict=True):
        np.testing.assert_allclose(made, 2.0 if seed % 2 else 1.0, atol=1e-6)


def test_half_of_the_episodes_have_no_noise_and_the_others_are_what_they_were() -> None:
    usual, mixed = played(1.0, 0.0), played(1.0, 0.5)
    for index, (before, after) in enumerate(zip(usual, mixed, strict=True)):
        if index % 2:
            np.testing.assert_array_equal(after, 0.0)
        else:
            np.testing.assert_array_equal(after, before)


def test_weaker_noise_changes_actions_by_its_share() -> None:
    for seed, made in zip(SEEDS, played(0.25, 0.0), strict=True):
        np.testing.assert_allclose(made, 0.5 if seed % 2 else 0.25, atol=1e-6)
    for made in played(0.0, 0.0):
        np.testing.assert_array_equal(made, 0.0)
    weak = played(0.25, 0.25)
    assert [not one.any() for one in weak] == [False, False, False, True] * 2


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.1, 3), (0.5, 16), (0.99, 31), (1.0, 32)])
def test_the_episodes_without_noise_are_evenly_spread_over_a_shard(fraction: float, count: int) -> None:
    seeds = list(range(100, 132))
    chosen = noise_free_episodes(seeds, fraction)
    assert len(chosen) == count and chosen <= set(seeds)
    for start in range(0, 24):
        assert abs(len(chosen & set(seeds[start : start + 8])) - 8 * fraction) <= 1


def test_rows_that_end_early_do_not_change_the_others() -> None:
    agent: Any = Player(Noisy())
    policy = Perturbed(agent, [3, 4, 5], 0.5, frozenset({5}))
    observations = Observations(agent.task, np.array([[3, 1, 0], [4, 1, 0], [5, 1, 0]], np.uint8))
    every = policy.act(observations, np.arange(3))
    some = Perturbed(agent, [3, 4, 5], 0.5, frozenset({5})).act(observations.of(np.array([0, 2])), np.array([0, 2]))
    np.testing.assert_array_equal(some, every[[0, 2]])
    np.testing.assert_array_equal(every[2], action_at(5, 1))
    np.testing.assert_allclose(every[0], action_at(3, 1) + 0.125)


@pytest.mark.parametrize("task", ["take-cover", "bin-packing"])
def test_weaker_noise_on_actions_that_are_no_numbers_is_refused(task: str) -> None:
    with pytest.raises(
        UserError, match=rf"later-noise must be 1 for {task}, whose actions are not continuous, got 0.3"
    ):
        check_noise(get_task(task), 0.3)
    check_noise(get_task(task), 1.0)
    check_noise(get_task("car-racing"), 0.3)
    with pytest.raises(UserError, match="later-noise must be 1"):
        check_settings(Config(task=task).with_settings(**{"collect.later_noise": 0.3}), None)


def test_the_shipped_driver_stays_within_the_bounds_of_its_actions() -> None:
    agent: Agent = load_agent("car-racing")
    seeds = [1, 2, 3, 4]
    policy = Perturbed(agent, seeds, 0.4, frozenset({2}))
    pictures = np.random.default_rng(1).integers(0, 256, (4, 96, 96, 3)).astype(np.uint8)
    own = agent.policy(4, seeds=seeds)
    for _ in range(3):
        observations = Observations(agent.task, pictures)
        found, plain = policy.act(observations, np.arange(4)), own.act(observations, np.arange(4))
        assert found.dtype == np.float32 and found.shape == (4, 3)
        assert (found >= [-1, 0, 0]).all() and (found <= 1).all()
        np.testing.assert_array_equal(found[1], plain[1])
        assert not np.isclose(found[[0, 2, 3]], plain[[0, 2, 3]]).all(axis=1).any()
