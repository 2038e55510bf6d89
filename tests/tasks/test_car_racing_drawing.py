"""CarRacing drawn at the size of its observations, compared with Gymnasium's own drawing."""

import hashlib
import inspect
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium
import numpy as np
import pygame
import pytest
from gymnasium.envs.box2d import car_dynamics, car_racing
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from worldmodels.execution.environments import make_envs
from worldmodels.tasks.car_racing import picture
from worldmodels.tasks.car_racing.env import CarRacing
from worldmodels.tasks.car_racing.overlay import fill_polygon, new_patch
from worldmodels.tasks.car_racing.task import CarRacing as Task

ID = "worldmodels.tasks.car_racing:worldmodels/CarRacing-v3"
# Of these functions and constants the drawing repeats what can be seen.
DRAWN = (
    car_racing.CarRacing._render,
    car_racing.CarRacing._render_road,
    car_racing.CarRacing._render_indicators,
    car_racing.CarRacing._draw_colored_polygon,
    car_racing.CarRacing._create_image_array,
    car_racing.CarRacing._create_track,
    car_racing.FrictionDetector._contact,
    car_dynamics.Car.draw,
)
CONSTANTS = [
    "STATE_W",
    "STATE_H",
    "WINDOW_W",
    "WINDOW_H",
    "SCALE",
    "PLAYFIELD",
    "ZOOM",
    "GRASS_DIM",
    "TRACK_WIDTH",
    "BORDER",
]


def noisy_drive(seed: int, steps: int, **options: Any) -> Iterator[tuple[Any, Any, CarRacing]]:
    """Results of the same noisy drive in Gymnasium's environment and in ours: over grass, kerbs, and in spins."""
    stock, fast = car_racing.CarRacing(**options), CarRacing(**options)
    rng = np.random.default_rng(seed)
    yield (stock.reset(seed=seed)[0],), (fast.reset(seed=seed)[0],), fast
    action = np.zeros(3, np.float32)
    for step in range(steps):
        if step % 10 == 0:
            gas = 1.0 if seed % 2 else rng.uniform()  # full gas makes the car spin
            brake = rng.uniform() * (rng.uniform() < 0.3)
            action = np.array([rng.uniform(-1, 1), gas, brake], np.float32)
        one, other = stock.step(action), fast.step(action)
        yield one, other, fast
        if one[2]:
            break


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.abs(one.astype(int) - other.astype(int))


def test_two_hundred_frames_look_like_gymnasiums_and_rewards_and_ends_are_the_same() -> None:
    errors, shares = [], []
    for seed in range(4):
        for one, other, _ in noisy_drive(seed, 50):
            assert one[1:4] == other[1:4]
            apart = difference(one[0], other[0])
            errors.append(apart.mean())
            shares.append((apart.max(axis=-1) > 16).mean())
    assert len(errors) == 204
    assert np.mean(errors) < 0.1 and np.max(errors) < 0.3
    assert np.mean(shares) < 0.001 and np.max(shares) < 0.004


def test_the_border_of_the_playing_field_and_what_is_beyond_it_look_like_gymnasiums() -> None:
    stock, fast = car_racing.CarRacing(), CarRacing()
    stock.reset(seed=1), fast.reset(seed=1)
    for position, angle in (((330.0, 100.0), 0.3), ((-325.0, -330.0), 2.0), ((0.0, 331.0), -1.0)):
        for env in (stock, fast):
            assert env.car is not None
            env.t = 2.0
            env.car.hull.position, env.car.hull.angle = position, angle
        one, other = stock._render("state_pixels"), fast._render("state_pixels")
        assert (one[:84] == 0).all(axis=-1).mean() > 0.05
        assert difference(one, other).mean() < 0.3


@pytest.mark.parametrize("options", [{"domain_randomize": True}, {"lap_complete_percent": 0.5}])
def test_the_options_of_gymnasiums_environment_have_the_same_effect(options: dict[str, Any]) -> None:
    for one, other, fast in noisy_drive(3, 60, **options):
        assert one[1:4] == other[1:4]
        assert difference(one[0], other[0]).mean() < 0.5
        assert fast.lap_complete_percent == options.get("lap_complete_percent", 0.95)


def test_discrete_actions_drive_the_same_way() -> None:
    stock, fast = car_racing.CarRacing(continuous=False), CarRacing(continuous=False)
    stock.reset(seed=2), fast.reset(seed=2)
    for action in (3, 3, 1, 2, 4, 0, 3) * 5:
        one, other = stock.step(action), fast.step(action)
        assert one[1:4] == other[1:4] and difference(one[0], other[0]).mean() < 0.3


def test_pictures_for_people_are_gymnasiums_own() -> None:
    one = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    other = gymnasium.make(ID, render_mode="rgb_array")
    action = np.array([0.3, 0.5, 0], np.float32)
    for env in (one, other):
        env.reset(seed=4)
        for _ in range(30):
            env.step(action)
    picture_of_one: Any = one.render()
    assert picture_of_one.shape == (400, 600, 3) and np.array_equal(picture_of_one, other.render())


def test_observations_are_not_overwritten_by_later_ones() -> None:
    env = CarRacing()
    first, _ = env.reset(seed=1)
    kept = first.copy()
    env.step(np.array([0, 1, 0], np.float32))
    assert np.array_equal(first, kept)


def test_the_checkers_of_gymnasium_and_stable_baselines_accept_it() -> None:
    env = gymnasium.make(ID)
    assert env.spec is not None and (env.spec.max_episode_steps, env.spec.reward_threshold) == (1000, 900)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_of_sb3(env)


def test_the_backend_fast_drives_like_the_reference_backend() -> None:
    task, actions = Task(), np.tile(np.array([0.1, 0.4, 0], np.float32), (3, 1))
    results = []
    for backend in ("fast", "gymnasium"):
        env = make_envs(task, 3, backend)
        env.reset(seed=[5, 6, 7])
        results.append([np.copy(value) for _ in range(12) for value in env.step(actions)[:4]])
        env.close()
    fast, stock = results
    for index, (one, other) in enumerate(zip(fast, stock, strict=True)):
        if index % 4 == 0:
            assert difference(one, other).mean() < 0.3
        else:
            assert np.array_equal(one, other)


def test_convex_polygons_are_filled_as_pygame_fills_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        corners = int(rng.integers(4, 9))  # it has another rule for triangles, of which there are none here
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        points = (30 + np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(3, 28, 2)).astype(np.int64)
        surface = pygame.Surface((64, 64))
        pygame.draw.polygon(surface, (255, 0, 0), points.tolist())
        patch = new_patch()
        fill_polygon(patch, points, corners, 1)
        assert np.array_equal(patch[:64, :64] > 0, pygame.surfarray.array3d(surface)[..., 0].T > 0), points


def test_where_nothing_can_be_cached_the_drawing_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def njit(function: Any, cache: bool = False, **_: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(picture.numba, "njit", njit)
    assert callable(picture._compiled_draw()) and asked == [True, False]


def test_a_gymnasium_that_draws_or_makes_tracks_in_another_way_is_noticed() -> None:
    text = "".join(inspect.getsource(function) for function in DRAWN)
    text += " ".join(f"{name}={getattr(car_racing, name)!r}" for name in CONSTANTS)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert digest == "a93cebfdc576a824", (
        "Gymnasium's CarRacing has changed: compare its drawing with tasks/car_racing/drawing.py and overlay.py, "
        "look at the differences of the pictures, and then write the new digest here"
    )
