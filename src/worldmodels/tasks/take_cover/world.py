"""ViZDoom's TakeCover for worker processes: it observes the screen alone, has a step limit, and cleans up after itself.

Imports no torch, because workers must start quickly. ViZDoom runs each game in a separate process that shares memory
with this one. Both end with the environment or, on Linux, with this process, however it ends. What a killed process
leaves behind is removed by ``leftovers.sweep``.
"""

import contextlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldmodels.tasks.take_cover import engine
from worldmodels.tasks.take_cover.leftovers import GameFolder, forget_shared_memory

STOCK_ID = "VizdoomTakeCover-v1"
SCREEN = (240, 320, 3)
PUBLISHED_SCREEN = (480, 640, 3)
_EPISODES_PER_GAME = 200
"""Episodes after which the game is restarted, because its memory grows and it crashes after a few thousand."""


class TakeCoverWorld(gymnasium.Env[np.ndarray, Any]):
    """Observations: the screen (240, 320, 3) uint8. Actions: 0 nothing, 1 right, 2 left. Reward: 1 per tic.

    Info: "health", the player's, from 100 to 0.

    published: a screen of (480, 640, 3) with the status bar, which leaves 400 rows for the view, and a start at tic 14,
    as in the code of 2018.

    The observation after death is black, as in the stock environment; :meth:`render` then still shows the last screen
    that was alive.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 35}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, published: bool = False) -> None:
        if importlib.util.find_spec("vizdoom") is None:
            raise gymnasium.error.DependencyNotInstalled('TakeCover needs vizdoom; pip install "worldmodels[doom]"')
        self.render_mode = render_mode
        screen = PUBLISHED_SCREEN if published else SCREEN
        self.observation_space = spaces.Box(0, 255, screen, np.uint8)
        self._published = published
        self.action_space = spaces.Discrete(3)
        self._game: Any = None
        self._folder: GameFolder | None = None
        self._episodes = 0
        self._screen = np.zeros(screen, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first screen of a new game."""
        super().reset(seed=seed)
        if self._game is not None and self._episodes >= _EPISODES_PER_GAME:
            self.close()
        with self._starting() if self._game is None else contextlib.nullcontext():
            observation, _ = self._game.reset(seed=seed)
        self._episodes += 1
        self._screen = observation["screen"]
        return self._screen, {"health": _health(observation)}

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """Make a game, which the block starts by resetting it."""
        import vizdoom.gymnasium_wrapper

        self._folder = GameFolder()
        options = _published_options() if self._published else {}
        self._game = gymnasium.make(STOCK_ID, disable_env_checker=True, **options).unwrapped
        self._episodes = 0
        stock = Path(vizdoom.__file__).with_name("vizdoom")
        self._game.game.set_vizdoom_path(str(_dying_with_us(stock, self._folder.path)))
        # The engine writes settings and saved games into the current directory, so it is started in a temporary one.
        with contextlib.chdir(self._folder.path):
            yield
        # Both processes have opened the shared memory. Without its names, nothing of it outlives them.
        forget_shared_memory(self._game.game.get_instance_id())

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one tic."""
        observation, reward, terminated, truncated, _ = self._game.step(int(action))
        screen = observation["screen"]
        if self._game.state is not None:
            self._screen = screen
        return screen, float(reward), bool(terminated), bool(truncated), {"health": _health(observation)}

    def render(self) -> Any:
        """The last screen that was not black (240, 320, 3) uint8 if the render_mode is "rgb_array", else None."""
        return self._screen if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the game and remove its files."""
        if self._game is not None:
            self._game.close()
            self._game = None
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def when_orphaned(self) -> None:
        """Remove the game's shared memory and files, since this process will be killed: its parent has died."""
        if self._game is not None:
            with contextlib.suppress(Exception):  # a game that is just starting may not tell its instance id yet
                forget_shared_memory(self._game.game.get_instance_id())
        if self._folder is not None:
            self._folder.remove()


def _health(observation: dict[str, Any]) -> float:
    """The player's health, which is the stock environment's only variable; after death, it reports 0."""
    return max(0.0, float(observation["gamevariables"][0]))


def _dying_with_us(stock: Path, folder: Path) -> Path:
    """A program in ``folder`` that becomes the engine ``stock`` and dies with this process; elsewhere than on Linux,
    and where ``folder`` may not hold programs, the engine itself."""
    if sys.platform != "linux":
        return stock
    command = shlex.join([sys.executable, "-IS", engine.__file__, str(os.getpid()), str(stock)])
    program = folder / "engine.sh"
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o700)
    return program if os.access(program, os.X_OK) else stock


def _published_options() -> dict[str, Any]:
    """Options of the stock environment with which its screen is that of the code of 2018."""
    from vizdoom import ScreenResolution

    return {"screen_resolution": ScreenResolution.RES_640X480, "render_hud": True, "episode_start_time": 14}


gymnasium.register(
    id="worldmodels/TakeCover-v0",
    entry_point="worldmodels.tasks.take_cover.world:TakeCoverWorld",
    max_episode_steps=2100,
)
