"""A tiny scripted environment, registered when this module is imported, also in worker processes."""

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

OBSERVATION = spaces.Box(-1e6, 1e6, (4,), np.float32)
ACTION = spaces.Box(-100, 100, (2,), np.float32)
ENV_ID = "process_env_worlds:Counting-v0"


class Counting(gymnasium.Env[np.ndarray, np.ndarray]):
    """Sees (seed, steps made, last action's two numbers); pays 100 * seed + steps + the action's first.

    Ends after 3 + seed % 4 steps: terminated for even seeds, truncated for odd ones. ``trouble`` strikes at
    step ``at`` of the episode with seed ``victim``; with ``once``, a file, only until that file exists.
    """

    observation_space = OBSERVATION
    action_space = ACTION

    def __init__(self, trouble: str = "", victim: int = 1, at: int = 2, once: str = "", shape: int = 4) -> None:
        if trouble == "unmakable":
            raise RuntimeError("no licence\nfor this world")
        self._trouble, self._victim, self._at, self._once, self._shape = trouble, victim, at, once, shape

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        assert seed is not None
        self._seed, self._steps = seed, 0
        return np.array([seed, 0, 0, 0], np.float32)[: self._shape], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._trouble and self._seed == self._victim and self._steps == self._at and self._strikes():
            if self._trouble == "raise":
                raise ArithmeticError("the wheel\ncame off")
            if self._trouble == "exit":
                os._exit(7)
            while True:
                time.sleep(0.01)
        if self._trouble == "slow":
            time.sleep(0.3)
        over = self._steps >= 3 + self._seed % 4
        seen = np.array([self._seed, self._steps, *action], np.float32)
        reward = 100 * self._seed + self._steps + float(action[0])
        return seen, reward, over and self._seed % 2 == 0, over and self._seed % 2 == 1, {}

    def _strikes(self) -> bool:
        if not self._once:
            return self._trouble != "slow"
        try:
            os.close(os.open(self._once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


class Small(Counting):
    """The same with whole numbers up to 255 as observations, as tasks have them."""

    observation_space = spaces.Box(0, 255, (4,), np.uint8)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        seen, info = super().reset(**options)
        return seen.astype(np.uint8), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, *rest = super().step(action)
        return seen.astype(np.uint8), *rest


gymnasium.register("Counting-v0", entry_point=Counting)
gymnasium.register("Small-v0", entry_point=Small)
