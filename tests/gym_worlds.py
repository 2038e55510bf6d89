"""Small Gymnasium environments, some of which misbehave; they are registered when this module is imported."""

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIDE = 20
LENGTH = 6
"""Steps of an episode of :class:`Diary` that the world ends."""

SPACES: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=-1),
    "two": spaces.Discrete(2),
    "multi-discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi-binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)),
    "square": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
}
"""Action spaces by name."""
STRANGE: dict[str, spaces.Space[Any]] = {
    "single": spaces.Discrete(1),
    "many": spaces.Discrete(100),
    "wide": spaces.Box(-1.0, 1.0, (8,), np.float32),
}
"""Spaces for which keys are of little use."""


def action_number(action: Any) -> int:
    """A number from 0 to 63 that tells actions of the spaces above apart, as far as the tests need it."""
    return (
        round(float(np.dot(np.ravel(np.asarray(action, np.float64))[:4], [8, 3, 1, 2][: np.size(action)])) * 1.5) % 64
    )


class Diary(gymnasium.Env[Any, Any]):
    """Its pictures tell the episode, the step and the last action; its reward is 100 times the step plus the action.

    space: of the actions; picture: "colour", "grey", "channel", "entry" or "rendered"; length: steps of an episode that
    the world ends with an even seed and truncates with an odd one.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(
        self, render_mode: str | None = None, space: str = "discrete", picture: str = "colour", length: int = LENGTH
    ) -> None:
        if picture not in ("colour", "grey", "channel", "entry", "rendered"):
            raise ValueError(f"there is no picture {picture!r}")
        self.render_mode, self._kind, self._length = render_mode, picture, length
        self.action_space = (SPACES | STRANGE)[space]
        shapes = {"grey": (SIDE, SIDE), "channel": (SIDE, SIDE, 1)}
        seen: spaces.Space[Any] = spaces.Box(0, 255, shapes.get(picture, (SIDE, SIDE, 3)), np.uint8)
        if picture == "entry":
            seen = spaces.Dict(
                {"image": seen, "place": spaces.Discrete(3), "code": spaces.Box(0, 9, (7, 7, 3), np.uint8)}
            )
        self.observation_space = seen if picture != "rendered" else spaces.Box(-1.0, 1.0, (4,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed, self._step, self._action = seed or 0, 0, 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self._step += 1
        self._action = action_number(action)
        over = self._step >= self._length
        return (
            self._seen(),
            100.0 * self._step + self._action,
            over and self._seed % 2 == 0,
            over and self._seed % 2 == 1,
            {},
        )

    def _colour(self) -> np.ndarray:
        return np.full((SIDE, SIDE, 3), (self._seed % 256, self._step % 256, 4 * self._action), np.uint8)

    def _seen(self) -> Any:
        colour = self._colour()
        if self._kind == "entry":
            return {"image": colour, "place": 1, "code": np.zeros((7, 7, 3), np.uint8)}
        grey = colour[..., 1]
        pictures = {"grey": grey, "channel": grey[..., None], "rendered": np.zeros(4, np.float32)}
        return pictures.get(self._kind, colour)

    def render(self) -> Any:
        return self._colour() if self.render_mode == "rgb_array" else None


class Faulty(Diary):
    """A diary with a fault."""

    def __init__(self, fault: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self._fault = fault
        if fault == "needs-mode" and render_mode is None:
            raise ValueError("choose a render_mode")
        strange: dict[str, spaces.Space[Any]] = {
            "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))),
            "dict": spaces.Dict({"move": spaces.Discrete(2)}),
            "infinite": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "huge": spaces.Discrete(100_000),
        }
        self.action_space = strange.get(fault, self.action_space)
        if fault == "no-picture":
            self.observation_space, self.metadata = spaces.Discrete(5), {"render_modes": ["human"]}
        elif fault == "two-pictures":
            one = self.observation_space
            self.observation_space, self.metadata = spaces.Dict({"left": one, "right": one}), {"render_modes": []}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if self._fault == "reset":
            raise RuntimeError("the battery\nis empty")
        if self._fault == "dies":
            os.kill(os.getpid(), 9)
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, ended, cut, info = super().step(action)
        if self._fault == "first-step" or (self._fault == "middle" and self._step == 4):
            raise RuntimeError("a wheel came off")
        if self._fault == "later" and self._seed > 1000:  # not in the first look, but in training
            raise RuntimeError("out of petrol")
        if self._fault == "nan" and self._step == 2:
            reward = float("nan")
        if self._fault == "grows" and self._step == 3:
            seen = np.zeros((SIDE + 1, SIDE, 3), np.uint8)
        if self._fault == "lies":
            seen = seen / 255.0
        return seen, reward, ended, cut, info


class Long(Diary):
    """Long episodes of pictures like those of simple games: a square that moves on a dark ground."""

    def __init__(self, length: int, render_mode: str | None = None) -> None:
        super().__init__(render_mode, "two", "colour", length)

    def _colour(self) -> np.ndarray:
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        row, column = self._step // 7 % 16, self._step % 16
        picture[row : row + 4, column : column + 4] = 200, 120, 40
        return picture


class Slow(Diary):
    """Takes its time."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.01)
        return super().step(action)


for _name, _kind in {"Diary": Diary, "Faulty": Faulty, "Slow": Slow}.items():
    gymnasium.register(f"toy/{_name}-v0", entry_point=f"gym_worlds:{_kind.__name__}", max_episode_steps=50)
gymnasium.register("toy/Endless-v0", entry_point="gym_worlds:Diary", kwargs={"length": 10**9})
gymnasium.register("toy/Long-v0", entry_point="gym_worlds:Long")
