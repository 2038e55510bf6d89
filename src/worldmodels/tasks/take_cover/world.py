"""ViZDoom's TakeCover for worker processes: it observes the screen alone, has a step limit, and cleans up after itself.

Imports no torch, because workers must start quickly. ViZDoom runs each game in a separate process that shares memory
with this one. Closing the environment removes both; what a killed process leaves behind is removed by :func:`sweep`.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STOCK_ID = "VizdoomTakeCover-v1"
SCREEN = (240, 320, 3)
_SHARED = Path("/dev/shm")
_KINDS = ("ViZDoomSM", "ViZDoomMQCtr", "ViZDoomMQDoom")
_FOLDER = "worldmodels-doom-"
_STARTING_SECONDS = 10.0
_EPISODES_PER_GAME = 200
"""Episodes after which the game is restarted, because its memory grows and it crashes after a few thousand."""


class TakeCoverWorld(gymnasium.Env[np.ndarray, Any]):
    """Observations: the screen (240, 320, 3) uint8. Actions: 0 nothing, 1 right, 2 left. Reward: 1 per tic."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 35}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        if importlib.util.find_spec("vizdoom") is None:
            raise gymnasium.error.DependencyNotInstalled('TakeCover needs vizdoom; pip install "worldmodels[doom]"')
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, SCREEN, np.uint8)
        self.action_space = spaces.Discrete(3)
        self._game: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._episodes = 0
        self._screen = np.zeros(SCREEN, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first screen of a new game."""
        super().reset(seed=seed)
        if self._game is not None and self._episodes >= _EPISODES_PER_GAME:
            self.close()
        # The engine writes settings and saved games into the current directory, so it is started in a temporary one.
        with self._in_temporary_folder():
            observation, _ = self._game.reset(seed=seed)
        self._episodes += 1
        self._screen = observation["screen"]
        return self._screen, {}

    @contextlib.contextmanager
    def _in_temporary_folder(self) -> Any:
        """If no game runs, make one and change to a temporary folder for the block, in which it starts."""
        if self._game is not None:
            yield
            return
        import vizdoom.gymnasium_wrapper  # noqa: F401

        self._folder = tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-", ignore_cleanup_errors=True)
        self._game = gymnasium.make(STOCK_ID, disable_env_checker=True).unwrapped
        self._episodes = 0
        with contextlib.chdir(self._folder.name):
            yield

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one tic. The observation after the last tic is black, as in the stock environment."""
        observation, reward, terminated, truncated, _ = self._game.step(int(action))
        self._screen = observation["screen"]
        return self._screen, float(reward), bool(terminated), bool(truncated), {}

    def render(self) -> Any:
        """The screen (240, 320, 3) uint8 if the render_mode is "rgb_array", else None."""
        return self._screen if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """End the game and remove its files."""
        if self._game is not None:
            self._game.close()
            self._game = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def when_orphaned(self) -> None:
        """Remove the game's shared memory and files, since this process will be killed: its parent has died."""
        if self._game is not None:
            with contextlib.suppress(Exception):  # a crashed game may not tell its instance id any more
                _unlink(self._game.game.get_instance_id())
        if self._folder is not None:
            self._folder.cleanup()


def _unlink(instance: str) -> None:
    for kind in _KINDS:
        (_SHARED / f"{kind}{instance}").unlink(missing_ok=True)


def sweep() -> None:
    """Remove shared memory and folders of games that no longer run. Does nothing without /dev/shm and /proc (Linux).

    A game outlives the process that played it if that process was killed and was not a worker of this package; such
    games are killed first.
    """
    if not _SHARED.is_dir() or not Path("/proc/self/cmdline").exists():
        return
    files = [path for path in _SHARED.glob("ViZDoom*") if _stale(path)]
    folders = [path for path in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*") if _stale(path)]
    if not files and not folders:
        return
    processes = [folder for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    orphans = {process for process in processes if _home(process) in folders and not _owned(_home(process))}
    for process in orphans:
        with contextlib.suppress(OSError):
            os.kill(int(process.name), signal.SIGKILL)
    processes = [process for process in processes if process not in orphans]
    running = b" ".join(_command_line(process) for process in processes)
    for path in files:
        instance = path.name
        for kind in _KINDS:
            instance = instance.removeprefix(kind)
        if instance.encode() not in running:
            path.unlink(missing_ok=True)
    lived_in = {_home(process) for process in processes}
    for path in folders:
        if path not in lived_in:
            shutil.rmtree(path, ignore_errors=True)


def _home(process: Path) -> Path | None:
    try:
        return (process / "cwd").readlink()
    except OSError:
        return None


def _owned(folder: Path | None) -> bool:
    """Whether the process whose id is in the name of a game's folder still runs; True if there is no such id."""
    owner = folder.name.removeprefix(_FOLDER).split("-")[0] if folder is not None else ""
    return not owner.isdigit() or Path("/proc", owner).exists()


def _command_line(folder: Path) -> bytes:
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""


def _stale(path: Path) -> bool:
    """Whether a file is this user's and older than 10 s: a game that starts makes its memory before its process."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and time.time() - status.st_mtime > _STARTING_SECONDS


gymnasium.register(
    id="worldmodels/TakeCover-v0",
    entry_point="worldmodels.tasks.take_cover.world:TakeCoverWorld",
    max_episode_steps=2100,
)
