"""A Gymnasium environment of any kind as one whose observations are pictures, for worker processes.

Imports no torch, because workers must start quickly.
"""

import importlib
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ENVIRONMENT = "worldmodels.tasks.gym:worldmodels/Picture-v0"
"""The id for ``gymnasium.make``."""


class PictureWorld(gymnasium.Env[np.ndarray, Any]):
    """``gymnasium.make(env_id, **options)``, observed as pictures (H, W, 3) uint8.

    picture: where they are: "observation", "entry" (the observation's entry of the name ``entry``) or "render"; shape:
    of these pictures, (H, W), (H, W, 1) or (H, W, 3); modes: the render_mode for training and the one in which people
    watch. Rewards must be finite, and pictures must keep their shape and type: ValueError otherwise.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        env_id: str,
        options: Mapping[str, Any],
        picture: str,
        entry: str,
        shape: tuple[int, ...],
        modes: tuple[str, str] = ("", ""),
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._picture, self._entry, self._shape = picture, entry, tuple(shape)
        mode = modes[1] if render_mode == "rgb_array" else modes[0]
        self._renders = mode == "rgb_array"
        self._env = open_env(env_id, options, mode)
        self.action_space = self._env.action_space
        self.observation_space = spaces.Box(0, 255, (*self._shape[:2], 3), np.uint8)
        rate = self._env.metadata.get("render_fps")
        self.metadata = {**self.metadata, "render_fps": rate} if rate else self.metadata
        self.looks = True
        """Whether pictures are rendered; without, for play that needs none, observations are not renewed."""
        self._last: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first picture of a new episode."""
        super().reset(seed=seed)
        observation, _ = self._env.reset(seed=seed, options=options)
        return self._seen(observation), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step, with an action of the environment's own space."""
        # Many environments with choices expect Python's own integers.
        chosen = int(action) if isinstance(self.action_space, spaces.Discrete) else np.asarray(action)
        observation, reward, terminated, truncated, _ = self._env.step(chosen)
        paid = float(reward)
        if not math.isfinite(paid):
            raise ValueError(f"the environment gave the reward {paid}, which is no finite number")
        return self._seen(observation), paid, bool(terminated), bool(truncated), {}

    def _seen(self, observation: Any) -> np.ndarray:
        if self._picture == "render":
            if not self.looks and self._last is not None:
                return self._last
            found = self._env.render()
        else:
            found = observation[self._entry] if self._picture == "entry" else observation
        self._last = as_picture(found, self._shape)
        return self._last

    def render(self) -> Any:
        """The picture for people, (H, W, 3) uint8, if the render_mode is "rgb_array", else None."""
        if self.render_mode != "rgb_array":
            return None
        if self._picture == "render" or not self._renders:
            return self._last
        return in_colour(np.asarray(self._env.render()))

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def when_orphaned(self) -> None:
        """Pass on that this process will be killed to an environment that wants to know."""
        clean_up = getattr(self._env.unwrapped, "when_orphaned", None)
        if clean_up is not None:
            clean_up()

    def __getattr__(self, name: str) -> Any:
        # Such as the state of a simulator, for code that knows the environment.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._env.unwrapped, name)


def open_env(env_id: str, options: Mapping[str, Any], render_mode: str) -> gymnasium.Env[Any, Any]:
    """The environment itself; render_mode: "" or "rgb_array"."""
    if env_id.startswith("ale_py:"):
        # Otherwise every game greets on the terminal.
        ale = importlib.import_module("ale_py")
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    chosen = {**options, "render_mode": render_mode} if render_mode else dict(options)
    return gymnasium.make(env_id, disable_env_checker=True, **chosen)


def as_picture(found: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A picture of the given ``shape`` in colour, (H, W, 3) uint8. ValueError for anything else."""
    array = np.asarray(found)
    if array.dtype != np.uint8 or array.shape != shape:
        wanted = "x".join(map(str, shape))
        given = f"{'x'.join(map(str, array.shape))} {array.dtype}" if array.ndim else type(found).__name__
        raise ValueError(f"expected a picture of {wanted} uint8 as before, the environment gave {given}")
    return in_colour(array)


def in_colour(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W), (H, W, 1) or (H, W, 3) as (H, W, 3)."""
    if picture.ndim == 2:
        picture = picture[..., None]
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
