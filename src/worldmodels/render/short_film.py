"""A short film of an agent, made within seconds, for machines without a screen."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodels.core.files import file_name
from worldmodels.render.video import record
from worldmodels.tasks.base import playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

_SECONDS = 10
_PICTURES_PER_SECOND = 25
"""At most; half of a world's pictures are enough to see it move, and take half the time to make."""


def short_film(agent: "Agent", seed: int, steps: int | None = None) -> tuple[Path, float]:
    """Record the first seconds of an episode; return the film's absolute path and how many seconds of the world it has.

    The film is "watch-TASK.mp4" in the current folder, or in the folder for temporary files if nothing can be written
    here. steps: the number of steps (None: those of ten seconds). Raises :class:`UserError` as :func:`record` does.
    """
    rate = playing_of(agent.task).frames_per_second
    folder = Path.cwd() if os.access(Path.cwd(), os.W_OK) else Path(tempfile.gettempdir())
    out = folder / f"watch-{file_name(agent.task.name)}.mp4"
    every = -(-rate // _PICTURES_PER_SECOND)
    result = record(agent, out, seed, max_steps=steps or _SECONDS * rate, every=every)
    return out, result["steps"] / rate
