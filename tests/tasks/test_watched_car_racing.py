"""The environment in which people watch CarRacing: the stock simulation and pictures, drawn in less time."""

import contextlib

import gymnasium
import numpy as np

from worldmodels.render.stock import stock_env, visible
from worldmodels.tasks import get_task

CAR = get_task("car-racing")


def test_what_people_watch_is_the_stock_environment_pixel_by_pixel() -> None:
    stock = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    random = np.random.default_rng(1)
    with contextlib.closing(stock), contextlib.closing(stock_env(CAR)) as watched:
        for seed in (3, 4):
            first, _ = stock.reset(seed=seed)
            np.testing.assert_array_equal(watched.reset(seed=seed)[0], first)
            for step in range(70):
                # Full gas and sharp turns leave traces of the wheels, in the grass and on the road.
                action = np.array([np.sin(step / 9) + random.normal() / 5, 1.0, step % 20 > 15], np.float32).clip(-1, 1)
                observation, *result = stock.step(action)
                found, *same = watched.step(action)
                np.testing.assert_array_equal(found, observation)
                assert same == result
                if step % 5 == 0:
                    pictures = [visible(CAR, np.asarray(env.render())) for env in (stock, watched)]
                    np.testing.assert_array_equal(*pictures)
            assert len(stock.unwrapped.car.particles) > 2  # type: ignore[attr-defined]


def test_polygons_are_not_transformed_one_by_one() -> None:
    with contextlib.closing(stock_env(CAR)) as watched:
        watched.reset(seed=3)
        drawn = []
        world = watched.unwrapped
        draw = world._draw_colored_polygon  # type: ignore[attr-defined]
        world._draw_colored_polygon = lambda *given, **options: (drawn.append(1), draw(*given, **options))  # type: ignore[attr-defined]
        watched.step(np.zeros(3, np.float32))
        watched.render()
    assert not drawn, "the stock environment transforms about 700, and those twice"
