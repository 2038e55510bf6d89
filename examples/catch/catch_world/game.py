"""The game as a Gymnasium environment, which knows nothing of worldmodels."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SIZE, PADDLE, SPEED = 64, 16, 3
BALL, FLOOR = 10, 6
BALLS = 10
"""Balls per episode."""


class CatchGame(gymnasium.Env[np.ndarray, Any]):
    """Balls fall one after the other, and a paddle at the bottom catches them.

    Observations: the picture (64, 64, 3) uint8. Actions: 0 stays, 1 moves right, 2 moves left. Reward: 1 for a ball
    that is caught, -1 for one that is missed. An episode ends after 10 balls.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode, with the paddle in the middle."""
        super().reset(seed=seed)
        self._paddle, self._fallen = SIZE // 2, 0
        self._drop()
        return self.render(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the paddle, and let the ball fall."""
        side = (0, 1, -1)[int(action)]
        self._paddle = int(np.clip(self._paddle + SPEED * side, PADDLE // 2, SIZE - PADDLE // 2))
        self._height += 2
        reward = 0.0
        if self._height >= SIZE - FLOOR - BALL:
            reward = 1.0 if abs(self._ball - self._paddle) <= PADDLE // 2 + 1 else -1.0
            self._fallen += 1
            self._drop()
        return self.render(), reward, self._fallen >= BALLS, False, {}

    def _drop(self) -> None:
        self._height, self._ball = 0, int(self.np_random.integers(BALL // 2, SIZE - BALL // 2))

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The picture."""
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        left = self._ball - BALL // 2
        picture[self._height : self._height + BALL, left : left + BALL] = 255, 200, 0
        picture[SIZE - FLOOR :, self._paddle - PADDLE // 2 : self._paddle + PADDLE // 2] = 80, 160, 255
        return picture


gymnasium.register(id="catch/Catch-v0", entry_point="catch_world.game:CatchGame")
