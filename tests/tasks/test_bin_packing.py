"""Bin packing: the rules against a plain retelling of them, the identity of the return, pictures, and the baselines."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodels.agent import load_agent
from worldmodels.cli import measure
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.evaluation import agent_policy, evaluate
from worldmodels.execution.executor import LocalExecutor
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Policy, PolicyFor, Task
from worldmodels.tasks.bin_packing.picture import PublishedPicture, palette
from worldmodels.tasks.bin_packing.rules import RULES
from worldmodels.tasks.bin_packing.world import BinPackingEnv, BinPackingVectorEnv, probabilities_of


class Plain:
    """One instance with a list of bins, as a person would write it."""

    def __init__(self, capacity: int, sizes: list[int], invalid: str) -> None:
        self.capacity, self.sizes, self.invalid = capacity, sizes, invalid
        self.bins: list[int] = []
        self.full = self.time = 0
        self.before = 0.0
        self.ended = False

    def step(self, level: int) -> float:
        size = self.sizes[self.time]
        fits = level == 0 or (level in self.bins and level + size <= self.capacity)
        if not fits and self.invalid == "nearest":
            open_levels = {one for one in self.bins if one + size <= self.capacity}
            level = min(open_levels, key=lambda one: (abs(one - level), one), default=0)
            fits = True
        if fits:
            reward = float(size if level else size - self.capacity)
            if level:
                self.bins.remove(level)
            if level + size == self.capacity:
                self.full += 1
            else:
                self.bins.append(level + size)
            self.before = reward
        else:
            reward = self.before - 100
            self.ended = self.invalid == "end"
        self.time += 1
        return reward

    def state(self) -> list[int]:
        return [self.bins.count(level) for level in range(self.capacity)] + [self.sizes[self.time]]


def best_possible(sizes: np.ndarray, capacity: int) -> np.ndarray:
    """Upper bound (N,) for the return of any rule, even one that knows all item sizes (N, T) in advance.

    The items need at least ceil(sum / B) bins, and the part of their capacity that the items leave over is free space.
    """
    return -np.asarray((-sizes.sum(axis=1)) % capacity, dtype=np.float64)


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.sampled_from([9, 30, 100]),
    invalid=st.sampled_from(["end", "continue", "nearest"]),
    careful=st.sampled_from([0.0, 0.7, 1.0]),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_variant_plays_by_the_plain_rules(capacity: int, invalid: str, careful: float, seed: int) -> None:
    env = BinPackingVectorEnv(5, capacity, "bounded-waste", items=25, invalid=invalid)
    state, info = env.reset(seed=seed)
    plains = [Plain(capacity, env._sizes[row].tolist(), invalid) for row in range(5)]
    rng = np.random.default_rng(seed)
    alive = np.ones(5, bool)
    for step in range(25):
        levels = rng.integers(0, capacity, 5)
        for row in range(5):
            assert state[row].tolist() == plains[row].state() or not alive[row]
            allowed = [x for x in range(capacity) if x == 0 or (state[row, x] and x + state[row, -1] <= capacity)]
            assert np.flatnonzero(info["action_mask"][row]).tolist() == allowed
            if rng.random() < careful:
                levels[row] = rng.choice(allowed)
        before = state
        state, rewards, terminated, truncated, info = env.step(levels)
        for row, plain in enumerate(plains):
            if not alive[row]:
                assert rewards[row] == 0 and (state[row] == before[row]).all()
                continue
            assert rewards[row] == plain.step(int(levels[row]))
            assert terminated[row] == plain.ended
            assert truncated[row] == (step == 24 and not plain.ended)
            assert env.full_bins[row] == plain.full
        alive &= ~(terminated | truncated)


@pytest.mark.parametrize("capacity", [9, 30, 100])
@pytest.mark.parametrize("distribution", ["linear-waste", "perfect-packing", "bounded-waste"])
@pytest.mark.parametrize("rule", RULES)
def test_the_return_is_minus_the_free_space_of_open_bins(capacity: int, distribution: str, rule: str) -> None:
    env, rng = BinPackingVectorEnv(8, capacity, distribution, items=300), np.random.default_rng(0)
    state, _ = env.reset(seed=3)
    returns = np.zeros(8)
    for _ in range(300):
        state, rewards, terminated, truncated, _ = env.step(RULES[rule](state, rng))
        assert not terminated.any()
        returns += rewards
    assert truncated.all()
    free = (state[:, :-1] * (capacity - np.arange(capacity))).sum(axis=1)
    np.testing.assert_array_equal(returns, -free)
    assert (returns <= best_possible(env._sizes[:, :300], capacity)).all()


def score(rule: str, capacity: int, distribution: str, episodes: int) -> tuple[float, float]:
    env, rng = BinPackingVectorEnv(episodes, capacity, distribution), np.random.default_rng(0)
    state, _ = env.reset(seed=11)
    returns = np.zeros(episodes)
    for _ in range(1000):
        state, rewards, *_ = env.step(RULES[rule](state, rng))
        returns += rewards
    return float(returns.mean()), float(returns.std() / np.sqrt(episodes))


@pytest.mark.parametrize(
    ("rule", "capacity", "distribution", "known"),
    [
        ("best-fit", 30, "perfect-packing", -26.6),
        ("sum-of-squares", 30, "perfect-packing", -26.6),
        ("uniform-valid", 30, "perfect-packing", -293.6),
        ("uniform-existing", 30, "perfect-packing", -84.3),
        ("best-fit", 30, "linear-waste", -478),
        ("sum-of-squares", 30, "linear-waste", -1864),
        ("best-fit", 9, "perfect-packing", -122.6),
        ("sum-of-squares", 9, "perfect-packing", -47.5),
        ("sum-of-squares", 9, "bounded-waste", -16.8),
        ("best-fit", 9, "linear-waste", -131.9),
    ],
)
def test_baselines_score_what_is_known_of_them(rule: str, capacity: int, distribution: str, known: float) -> None:
    mean, error = score(rule, capacity, distribution, 400)
    assert abs(mean - known) < 4 * error + 0.02 * abs(known)


def test_items_come_as_often_as_they_should_and_are_the_seeds() -> None:
    env = BinPackingVectorEnv(40, 30, "perfect-packing")
    env.reset(seed=1)
    chances = np.bincount(env._sizes.ravel(), minlength=10)[1:] / env._sizes.size
    np.testing.assert_allclose(chances, probabilities_of("perfect-packing", 30), atol=0.01)
    assert (chances == 0).tolist() == (probabilities_of("perfect-packing", 30) == 0).tolist()
    other = BinPackingVectorEnv(2, 30, "perfect-packing")
    other.reset(seed=[7, 20])
    again = BinPackingVectorEnv(1, 30, "perfect-packing")
    again.reset(seed=[20])
    np.testing.assert_array_equal(other._sizes[1], again._sizes[0])
    assert (other._sizes[0] != other._sizes[1]).any()


def test_rows_are_reset_one_by_one_and_the_last_observation_is_kept() -> None:
    env = BinPackingVectorEnv(3, 9, items=4, invalid="end", autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=1)
    seen, rewards, terminated, _, info = env.step(np.array([0, 5, 0]))
    assert terminated.tolist() == [False, True, False] and rewards[1] == -100
    assert info["_final_obs"].tolist() == [False, True, False]
    assert (seen[1, :-1] == 0).all() and (seen[0, :-1] != 0).any()
    env = BinPackingVectorEnv(3, 9, items=4)
    env.reset(seed=1)
    before, *_ = env.step(np.zeros(3, np.int64))
    after, _ = env.reset(seed=2, options={"reset_mask": np.array([True, False, False])})
    assert (after[0, :-1] == 0).all() and (after[1:] == before[1:]).all()


def test_a_number_between_0_and_1_is_a_level() -> None:
    env = BinPackingVectorEnv(4, 30, items=5, continuous=True)
    state, _ = env.reset(seed=1)
    _, rewards, *_ = env.step(np.array([[0.0], [1 / 30], [0.999], [1.0]], np.float32))
    assert rewards[:2].tolist() == [item - 30 for item in state[:2, -1].tolist()]
    assert rewards[2:].tolist() == [-100, -100]


# --- pictures ------------------------------------------------------------------------------------------------


def test_the_published_palette_goes_from_the_known_darkest_to_the_known_lightest_blue() -> None:
    assert np.abs(palette()[0] / 255 - (0.031, 0.221, 0.468)).max() < 0.005
    assert np.abs(palette()[29] / 255 - (0.944, 0.969, 0.992)).max() < 0.005


def test_the_published_picture_is_drawn_as_the_published_code_draws_it() -> None:
    rng = np.random.default_rng(3)
    counts = rng.choice([0, 0, 1, 5, 28, 29, 30, 44, 200], (6, 30))
    counts[:, 0] = 0
    items = rng.integers(1, 10, 6)
    found = PublishedPicture(1000)(counts, items)
    blues = palette()
    for row in range(6):
        wanted = np.zeros((64, 64, 3), np.uint8)
        for level in range(1, 30):
            left, column = int(counts[row, level]), 0
            top = 58 - 2 * level
            wanted[top : top + 3] = 0  # the next level overwrites the row that it shares
            while left >= 29:
                wanted[top : top + 3, column : column + 2] = blues[29]
                left, column = left - 15, column + 2
            if left > 0:
                wanted[top : top + 3, column : column + 2] = blues[left]
        wanted[60:] = 0
        wanted[60:64, 6 * items[row] : 6 * items[row] + 6] = blues[items[row]]
        np.testing.assert_array_equal(found[row], wanted)


def test_from_the_counted_picture_every_count_and_the_item_can_be_read() -> None:
    rng = np.random.default_rng(4)
    env = BinPackingVectorEnv(1, 30, observation="picture", items=60)
    counts = rng.choice([0, 0, 0, 1, 2, 3, 7, 8, 9, 20, 36], (300, 30))
    counts[:, 0] = 0
    items = rng.integers(1, 10, 300)
    pictures = env._picture(counts, items)
    level_of_row = 29 - np.arange(64) * 29 // 64
    for level in range(1, 30):
        row = int(np.flatnonzero(level_of_row == level)[0])
        lit = pictures[:, row, :56].any(axis=-1)
        assert (lit[:, [0, 14, 20]].sum(axis=1) + lit[:, 23:].sum(axis=1) == counts[:, level]).all()
        fits = (pictures[:, row, 0] == (80, 200, 120)).all(axis=-1)
        assert (fits == ((counts[:, level] > 0) & (level + items <= 30))).all()
    top = pictures[:, :, 62].any(axis=-1).argmax(axis=1)
    tops = [np.unique(top[items == size]).tolist() for size in range(1, 10)]
    assert tops == [[64 * (9 - size) // 9] for size in range(1, 10)]


@pytest.mark.parametrize("capacity", [9, 30, 100])
@pytest.mark.parametrize("encoding", ["counted", "published"])
@pytest.mark.parametrize("mask", [False, True])
def test_gymnasiums_checker_is_content(capacity: int, encoding: str, mask: bool) -> None:
    if encoding == "published" and capacity != 30:
        with pytest.raises(UserError, match="capacity 30"):
            BinPackingEnv(capacity=capacity, encoding=encoding, observation="picture")
        return
    for observation in ("state", "picture"):
        env = BinPackingEnv(capacity=capacity, encoding=encoding, observation=observation, mask=mask, items=20)
        check_env(env, skip_render_check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": [0.5, 0.4]}, "sum to 0.9"),
        ({"distribution": [-0.5, 1.5]}, "at least 0"),
        ({"distribution": [float("nan")]}, "at least 0"),
        ({"distribution": [0, 0, 0, 1], "capacity": 3}, "some have size 4"),
        (
            {"capacity": 10},
            "capacity up to 9 or from 30 on for the distribution 'perfect-packing', got 10; ",
        ),
        ({"distribution": "linear-waste", "capacity": 29}, "up to 9 or from 30 on .* got 29; change it"),
        ({"distribution": "prefect-packing"}, "unknown distribution"),
        ({"capacity": 1}, "capacity of at least 2"),
        ({"items": 0}, "items of at least 1"),
        ({"num_envs": 0}, "num_envs of at least 1"),
        ({"invalid": "ignore"}, "unknown invalid"),
        ({"observation": "sound"}, "unknown observation"),
        ({"encoding": "mine"}, "unknown encoding"),
        ({"autoreset_mode": AutoresetMode.NEXT_STEP}, "DISABLED or SAME_STEP"),
    ],
)
def test_bad_settings_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BinPackingVectorEnv(**options)


@pytest.mark.parametrize(
    ("continuous", "action", "message"),
    [
        (False, np.array([30]), "levels from 0 to 29 as actions, got 30"),
        (False, np.array([-1]), "got -1"),
        (False, np.array([1.0]), "whole numbers"),
        (False, np.array([1, 2]), "expected 1 whole numbers"),
        (True, np.array([[1.5]]), "from 0 to 1"),
        (True, np.array([[np.nan]]), "from 0 to 1"),
    ],
)
def test_actions_outside_the_range_are_refused(continuous: bool, action: np.ndarray, message: str) -> None:
    env = BinPackingVectorEnv(1, continuous=continuous)
    with pytest.raises(UserError, match="reset before step"):
        env.step(action)
    env.reset(seed=1)
    with pytest.raises(UserError, match=message):
        env.step(action)


# --- the task ------------------------------------------------------------------------------------------------


def test_rules_are_evaluated_by_their_names(tmp_path: Path) -> None:
    for rule, known in (("best-fit", -26.6), ("uniform-existing", -84.3)):
        target = tmp_path / f"{rule}.json"
        size = ["--episodes", "300", "--json", str(target)]
        measure.evaluate("evaluate", ["bin-packing", "--policy", rule, *size], "")
        found = json.loads(target.read_text())
        assert found["mean"] == pytest.approx(known, abs=4) and found["agent"] == rule
    with pytest.raises(UserError, match=r"choose agent, best-fit, .* or random"):
        measure.evaluate("evaluate", ["bin-packing", "--policy", "worst-fit"], "")


def test_returns_do_not_depend_on_how_many_environments_run_together() -> None:
    task = get_task("bin-packing")
    policies = [(task, task.random_policy), (task, task.exploration), *map(task.rule, task.rules)]
    for world, policy in policies:
        perturbed = partial(_perturbed, world, policy)
        for chosen in (policy, perturbed):
            found = [
                evaluate(LocalExecutor(), world, chosen, "native", range(20, 28), count, 60).returns.tolist()
                for count in (1, 3, 8)
            ]
            assert found[0] == found[1] == found[2] and len(set(found[0])) > 1


def _perturbed(world: Task, policy: PolicyFor, seeds: Sequence[int]) -> Policy:
    return world.perturbed(policy(seeds), seeds)


def test_a_capacity_without_a_published_distribution_takes_probabilities() -> None:
    env = BinPackingVectorEnv(2, 20, [0, 0.5, 0.5], items=10)
    assert env.reset(seed=1)[0].shape == (2, 21)


def test_the_shipped_agent_packs_far_better_than_who_fills_any_open_bin() -> None:
    agent = load_agent("bin-packing")
    seeds = episode_seeds("evaluation", 5, 12)
    returns = evaluate(LocalExecutor(), agent.task, agent_policy(agent), "native", seeds, len(seeds)).returns
    # Uniform over existing bins: -84; best fit and this agent: less than half of it.
    assert returns.mean() > -40 and returns.min() > -84
