"""CarRacing in which an agent chooses an action for several frames at once: its environments, by the ids below.

The worlds themselves and their limit of 1,000 frames stay as they are. Half as many choices mean half as many pictures
to draw and to encode, and M and C have to look only half as many steps ahead.
"""

from typing import Any

import gymnasium
import numpy as np

FAST = "worldmodels.tasks.car_racing:worldmodels/CarRacing-v3"
"""The world drawn directly at 96 x 96 pixels (:mod:`~worldmodels.tasks.car_racing.env`)."""
STOCK = "CarRacing-v3"
WATCHED = "worldmodels.tasks.car_racing.world:worldmodels/WatchedCarRacing-v3"
"""The world for watching and playing (:mod:`~worldmodels.tasks.car_racing.world`)."""
REPEATED = "worldmodels.tasks.car_racing.repeated:worldmodels/RepeatedCarRacing-v3"


class RepeatAction(gymnasium.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """Every action lasts for ``frames`` frames, or until the episode ends: the sum of rewards, the last observation.

    Like Gymnasium's wrapper of this name, but a world with an attribute ``draws`` does not draw frames that nobody
    sees.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, Any], frames: int) -> None:
        super().__init__(env)
        self._frames = frames
        self._draws_on_demand = hasattr(env.unwrapped, "draws")

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One choice: up to ``frames`` frames of the world."""
        world: Any = self.env.unwrapped
        total = 0.0
        for frame in range(1, self._frames + 1):
            if self._draws_on_demand:
                world.draws = frame == self._frames
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        if self._draws_on_demand and not world.draws:
            world.draws = True
            observation = world.observe()
        return observation, total, terminated, truncated, info


def make(world: str, action_repeat: int, **options: Any) -> RepeatAction:
    """The environment ``world``, one of the ids above, with every action repeated for ``action_repeat`` frames.

    options: of ``gymnasium.make`` for the world. A limit that ``gymnasium.make`` gets for :data:`REPEATED` counts
    actions.
    """
    return RepeatAction(gymnasium.make(world, disable_env_checker=True, **options), action_repeat)


gymnasium.register(REPEATED.partition(":")[2], entry_point="worldmodels.tasks.car_racing.repeated:make")
