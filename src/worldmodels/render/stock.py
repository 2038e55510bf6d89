"""The stock environment of a task, which renders pictures for people."""

import contextlib
from collections.abc import Iterator
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.execution.environments import check_packages
from worldmodels.tasks import Task
from worldmodels.tasks.base import ProcessWorld, playing_of


def stock_env(task: Task) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """One stock Gymnasium environment, limited to the task's longest episode.

    Raises :class:`UserError` if it cannot be made; its ``reset`` and ``step`` do so if the simulator fails.
    """
    playing = playing_of(task)
    world = task.worlds.get(task.reference_backend)
    if isinstance(world, ProcessWorld):
        check_packages(task, world)
    try:
        return _InOneLine(playing.make(render_mode="rgb_array", max_episode_steps=task.max_steps))
    except gymnasium.error.Error as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot open {playing.gymnasium_id} to draw it: {reason}; run worldmodels doctor") from None


class _InOneLine(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Turns errors of the simulator into a :class:`UserError` of one line."""

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        with self._failing():
            return self.env.reset(**given)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        with self._failing():
            return self.env.step(action)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            name = self.spec.id if self.spec else "the world"
            raise UserError(f"{name} failed: {reason}; run the same command again") from error


def visible(task: Task, picture: np.ndarray) -> np.ndarray:
    """The rows of a picture (H, W, 3) that frames keep, so that all panels show the same part of the world.

    They are copied, because a world may render its next picture into the same memory.
    """
    top, bottom = (round(len(picture) * share) for share in playing_of(task).visible_rows)
    return np.array(picture[top:bottom], order="C")
