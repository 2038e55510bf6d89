"""Finished laps and visited tiles, which follow from rewards and ends, against what the simulator itself counts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations

TASK = get_task("car-racing")


def facts(rewards: list[float], terminated: bool) -> dict[str, Any]:
    """What the task says of one episode."""
    found = TASK.episode_facts(
        np.array([sum(rewards)]), np.array([len(rewards)]), np.array([terminated]), np.array(rewards[-1:])
    )
    assert all(values.shape == (1,) for values in found.values())
    return {name: values[0].item() for name, values in found.items()}


@pytest.fixture
def car() -> Iterator[Any]:
    """The environment of the fastest backend, whose physics and rewards are Gymnasium's own."""
    for package in ("Box2D", "pygame", "numba"):
        pytest.importorskip(package)
    import gymnasium

    env = gymnasium.make("worldmodels.tasks.car_racing:worldmodels/CarRacing-v3")
    yield env
    env.close()


def counted(car: Any) -> float:
    """The share of tiles that the simulator has counted."""
    return float(car.unwrapped.tile_visited_count / len(car.unwrapped.track))


def test_the_share_of_tiles_is_what_the_simulator_has_counted(car: Any) -> None:
    for seed in (3, 4):
        seen, _ = car.reset(seed=seed)
        driver, rewards = TASK.exploration([0]), list[float]()
        for step in range(1, 241):
            action = driver.act(Observations(TASK, seen[None]), np.arange(1))[0]
            seen, reward, terminated, truncated, _ = car.step(action)
            rewards.append(float(reward))
            if step % 40 == 0:
                found = facts(rewards, terminated)
                assert found == {"finished": False, "tiles": pytest.approx(counted(car), abs=1e-9)}
            assert not terminated and not truncated
        assert counted(car) > 0, "the car has driven"


def test_a_lap_is_finished_when_the_simulator_says_so(car: Any) -> None:
    car.reset(seed=5)
    rewards = [float(car.step(np.array([0.0, 0.1, 0.0], np.float32))[1]) for _ in range(10)]
    world = car.unwrapped
    # All tiles but the last one are visited at once, as if the car had driven around.
    left = len(world.track) - world.tile_visited_count
    world.reward += 1000 / len(world.track) * left
    world.tile_visited_count += left
    _, reward, terminated, truncated, info = car.step(np.zeros(3, np.float32))
    rewards.append(float(reward))
    assert terminated and not truncated and info["lap_finished"]
    assert facts(rewards, terminated) == {"finished": True, "tiles": pytest.approx(1.0, abs=1e-9)}
    assert facts(rewards, False)["finished"] is False, "a limit ended it"


def test_a_car_that_leaves_the_playfield_has_not_finished(car: Any) -> None:
    car.reset(seed=1)
    rewards, terminated, before, info = list[float](), False, 0.0, dict[str, Any]()
    while not terminated and len(rewards) < 900:
        before = counted(car)
        _, reward, terminated, _, info = car.step(np.array([0.0, 0.5, 0.0], np.float32))
        rewards.append(float(reward))
    assert terminated and info["lap_finished"] is False and rewards[-1] == -100
    assert facts(rewards, terminated) == {"finished": False, "tiles": pytest.approx(before, abs=1e-9)}


def test_rewards_that_a_backend_rounds_give_the_same_facts() -> None:
    """EnvPool pays in float32."""
    for tiles, count in ((281, 281), (280, 281), (150, 300)):
        rewards = [1000 / count - 0.1] * tiles + [-0.1] * 300
        rounded = [float(np.float32(reward)) for reward in rewards]
        found = facts(rounded, terminated=tiles == count)
        assert found == {"finished": tiles == count, "tiles": pytest.approx(tiles / count, abs=1e-6)}


def test_several_episodes_are_told_apart() -> None:
    found = TASK.episode_facts(
        returns=np.array([926.8, 830.0, 148.0, 900.0]),
        lengths=np.array([732, 1000, 521, 1000]),
        terminated=np.array([True, False, True, True]),
        last_rewards=np.array([3.4, -0.1, -100.0, 3.3]),
    )
    assert found["finished"].dtype == bool and found["finished"].tolist() == [True, False, False, True]
    np.testing.assert_allclose(found["tiles"], [1.0, 0.93, 0.3, 1.0], rtol=1e-12)


def test_other_worlds_have_no_goal_and_nothing_to_tell() -> None:
    for name in ("take-cover", "bin-packing"):
        task = get_task(name)
        assert task.goal == "" and not task.episode_facts(np.ones(2), np.ones(2), np.ones(2, bool), np.ones(2))
