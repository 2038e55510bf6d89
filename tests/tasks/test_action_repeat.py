"""CarRacing with actions that last for several frames: the same world, seen and steered less often."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dream_agents import dreamer
from worldmodels.agent import Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.evaluation import agent_policy
from worldmodels.execution.environments import make_envs
from worldmodels.render.comparison import compare, holding
from worldmodels.render.stock import stock_env
from worldmodels.rollouts import rollout
from worldmodels.run.presets import preset, resolved, task_of
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations, playing_of
from worldmodels.tasks.car_racing.task import CarRacing

TWO = CarRacing(action_repeat=2)
STRAIGHT = np.array([0.0, 0.1, 0.0], np.float32)
TURN = np.array([0.2, 0.3, 0.0], np.float32)


@pytest.fixture
def frames() -> Iterator[Any]:
    """The world frame by frame."""
    for package in ("Box2D", "pygame", "numba"):
        pytest.importorskip(package)
    import gymnasium

    with closing(gymnasium.make("worldmodels.tasks.car_racing:worldmodels/CarRacing-v3")) as env:
        yield env


def one_by_one(env: Any, action: np.ndarray, count: int) -> tuple[np.ndarray, float, bool, bool]:
    """What ``count`` frames with an action end with, and the sum of their rewards; fewer if the episode ends."""
    total, ended, cut, seen = 0.0, False, False, np.empty(0)
    for _ in range(count):
        seen, reward, ended, cut, _ = env.step(action)
        total += reward
        if ended or cut:
            break
    return seen, total, ended, cut


@pytest.mark.parametrize("repeat", [2, 3])
def test_a_step_is_so_many_frames_with_the_same_action(frames: Any, repeat: int) -> None:
    with closing(make_envs(CarRacing(repeat), 1, "fast")) as env:
        seen, _ = env.reset(seed=[11])  # type: ignore[arg-type]
        assert np.array_equal(seen[0], frames.reset(seed=11)[0])
        for step in range(60):
            action = np.array([np.sin(step / 5), 0.3, 0.0], np.float32)
            seen, reward, ended, cut, _ = env.step(action[None])
            wanted, total, *_ = one_by_one(frames, action, repeat)
            assert np.array_equal(seen[0], wanted), step
            assert reward[0] == pytest.approx(total, abs=1e-9) and not ended[0] and not cut[0]


def test_the_car_that_leaves_the_field_between_two_pictures_is_seen_where_it_left(frames: Any) -> None:
    frames.reset(seed=3)
    lengths = 0
    while True:
        wanted, _, ended, cut = one_by_one(frames, STRAIGHT, 1)
        lengths += 1
        if ended or cut:
            break
    assert ended
    # With one of these, the car leaves in the first frame of a step, whose picture is drawn although others are left.
    for repeat in (2, 3, 4, 7):
        with closing(make_envs(CarRacing(repeat), 1, "fast")) as env:
            env.reset(seed=[3])  # type: ignore[arg-type]
            for _ in range(-(-lengths // repeat)):
                seen, reward, left, _, _ = env.step(STRAIGHT[None])
        assert left[0] and reward[0] <= -99 and np.array_equal(seen[0], wanted)


def test_an_episode_has_a_thousand_frames_whatever_the_steps() -> None:
    class Waits:
        def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
            return np.zeros((len(rows), 3), np.float32)

    pytest.importorskip("numba")
    for repeat, steps in ((2, 500), (3, 334)):
        task = CarRacing(repeat)
        with closing(make_envs(task, 1, "fast")) as env:
            played = rollout(task, env, Waits(), [5], task.max_steps)
        assert task.max_steps == steps and played.lengths.tolist() == [steps] and not played.terminated[0]
        # The car stands on the first tiles from the beginning.
        visited = played.returns[0] + 0.1 * 1000
        assert 0 < visited < 50
        assert played.facts(task)["tiles"][0] == pytest.approx(visited / 1000, abs=1e-3)


def test_visited_tiles_are_what_the_simulator_has_counted() -> None:
    pytest.importorskip("numba")
    import gymnasium

    world = TWO.worlds["fast"]
    with closing(gymnasium.make(world.env_id, **world.options)) as env:  # type: ignore[union-attr]
        seen, _ = env.reset(seed=4)
        driver, total = TWO.exploration([0]), 0.0
        for _ in range(120):
            seen, reward, ended, _, _ = env.step(driver.act(Observations(TWO, seen[None]), np.arange(1))[0])
            total += float(reward)
        assert not ended
        inner: Any = env.unwrapped
        share = inner.tile_visited_count / len(inner.track)
    found = TWO.episode_facts(np.array([total]), np.array([120]), np.array([False]), np.array([-0.2]))
    assert share > 0 and found["tiles"][0] == pytest.approx(share, abs=1e-9)


def test_a_car_that_left_the_field_keeps_its_tiles() -> None:
    # 50 steps of two frames; in the last one the car visits nothing, and leaves in its second frame.
    total = 200.0 - 0.1 * 99 - 100.0
    found = TWO.episode_facts(np.array([total]), np.array([50]), np.array([True]), np.array([-100.1]))
    assert not found["finished"][0] and found["tiles"][0] == pytest.approx(0.2)


def test_stock_gymnasium_and_the_fast_drawing_pay_the_same() -> None:
    pytest.importorskip("numba")
    paid = []
    for backend in TWO.worlds:
        with closing(make_envs(TWO, 1, backend)) as env:
            env.reset(seed=[8])  # type: ignore[arg-type]
            paid.append([float(env.step(TURN[None])[1][0]) for _ in range(40)])
    assert list(TWO.worlds) == ["fast", "gymnasium"], "EnvPool cannot repeat actions"
    assert paid[0] == paid[1]


def noise_of(task: CarRacing, steps: int) -> np.ndarray:
    """The noise of a perturbed car that otherwise does not steer, for 300 cars, (steps, 300)."""

    class Straight:
        def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
            return np.zeros((len(rows), 3))

    rows = np.arange(300)
    policy = task.perturbed(Straight(), range(300))
    nothing = Observations(task, np.zeros((300, 1)))
    return np.array([policy.act(nothing, rows)[:, 0] for _ in range(steps)])


def test_explorers_wander_as_far_and_as_fast_as_with_single_frames() -> None:
    single, double = noise_of(CarRacing(), 400)[::2], noise_of(TWO, 200)
    for measure in (
        lambda noise: noise[50:].std(),
        lambda noise: np.mean(noise[50:-5] * noise[55:]) / noise[50:].var(),  # ten frames apart
    ):
        assert measure(double) == pytest.approx(measure(single), rel=0.15)


def test_people_watch_at_the_same_speed() -> None:
    pytest.importorskip("pygame")
    playing = playing_of(TWO)
    assert playing.frames_per_second == 25 and playing_of(CarRacing()).frames_per_second == 50
    with closing(stock_env(TWO)) as env:
        env.reset(seed=8)
        steps = 1
        while not any(env.step(np.zeros(3, np.float32))[2:4]):
            steps += 1
        picture: Any = env.render()
        assert steps == 500 and picture.shape == (400, 600, 3)


def test_in_a_film_of_single_frames_it_drives_as_in_its_own_world(tmp_path: Path) -> None:
    for package in ("Box2D", "pygame", "imageio_ffmpeg"):
        pytest.importorskip(package)
    made = dreamer(seed=3)
    agent = Agent(TWO, made.vision, made.memory, made.controller, starts=made.starts)
    filmed = compare(CarRacing(), {"two": holding(agent_policy(agent), 2)}, tmp_path / "film.mp4", 6, 60)
    with closing(make_envs(TWO, 1, "gymnasium")) as env:
        own = rollout(TWO, env, agent.policy(1), [6], 30)
    assert filmed.returns[0] == pytest.approx(own.returns[0]) and (filmed.lengths[0], own.lengths[0]) == (60, 30)


def test_an_agent_keeps_the_frames_of_its_actions(tmp_path: Path) -> None:
    made = dreamer()
    agent = Agent(TWO, made.vision, made.memory, made.controller, starts=made.starts)
    agent.save(tmp_path / "two.safetensors")
    loaded = load_agent(tmp_path / "two.safetensors")
    assert loaded.task.options == {"action_repeat": 2} and loaded.task.max_steps == 500
    assert loaded.task.start_steps == (30, 37, 45, 52)
    made.save(tmp_path / "one.safetensors")
    single = load_agent(tmp_path / "one.safetensors")
    assert single.task.max_steps == 1000 and torch.equal(loaded.controller, single.controller)
    assert loaded.digest() != single.digest(), "they do not act alike"


def test_presets_choose_and_runs_keep_the_frames() -> None:
    config = preset("quick", "car-racing")
    settled = resolved(config, task_of(config))
    assert settled.env == {"action_repeat": 2} and task_of(settled).max_steps == 500
    assert settled.dream.start_steps == (30, 37, 45, 52)
    single = preset("quick", "car-racing", {"action_repeat": 1})
    assert resolved(single, task_of(single)).env == {} and task_of(single).max_steps == 1000
    for name in ("standard", "paper"):
        assert task_of(preset(name, "car-racing")).max_steps == 1000, "these agents act in every frame"


@pytest.mark.parametrize("given", [0, -1, 1.5, "2", True, None, 11, 10**30, [2]])
def test_other_numbers_of_frames_are_refused(given: Any) -> None:
    with pytest.raises(UserError, match="whole number of frames from 1 to 10 as action_repeat, got"):
        get_task("car-racing", {"action_repeat": given})
    with pytest.raises(UserError, match="whole number of frames"):
        get_task("car-racing", None, {"options": {"action_repeat": given}})


@pytest.mark.parametrize("facts", [{"options": 3}, {"options": ["action_repeat"]}])
def test_damaged_notes_on_the_world_are_refused(facts: Any) -> None:
    with pytest.raises(UserError, match="expected the options of car-racing as a table"):
        get_task("car-racing", None, facts)


def test_other_options_are_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"has no option --env.colour of its environment; it has --env.action_repeat"):
        get_task("car-racing", {"colour": 1, "action_repeat": 2})
    with pytest.raises(UserError, match=r"take-cover has no options of its environment \(--env.action_repeat\)"):
        get_task("take-cover", {"action_repeat": 2})
