"""A film of several policies that play the same episode side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import imageio.v2
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from PIL import Image

from worldmodels.core.device import torch_threads
from worldmodels.core.progress import Progress
from worldmodels.core.theme import BACKGROUND, QUIET, TEXT, write
from worldmodels.render.stock import stock_env, visible
from worldmodels.render.target import whole_file
from worldmodels.rollouts import Rollouts, rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, Policy, PolicyFor, playing_of

_PANEL = (400, 300)
_MARGIN, _HEAD = 16, 48
_EVERY = 2
"""Only every so many steps are drawn, because drawing takes most of the time."""


def compare(task: Task, policies: Mapping[str, PolicyFor], out: Path, seed: int, max_steps: int) -> Rollouts:
    """Let the policies play the episode of ``seed`` for ``max_steps`` steps at most, and film them side by side.

    policies: by the names that are written above the pictures; out: an .mp4, which appears when it is complete. The
    world is the stock Gymnasium environment. Returns the results of the episodes, in the order of ``policies``. Raises
    :class:`UserError` if the world cannot be drawn or the file cannot be written.
    """
    env = SyncVectorEnv([lambda: stock_env(task)] * len(policies), autoreset_mode=AutoresetMode.DISABLED)
    speed = playing_of(task).frames_per_second / _EVERY
    try:
        with (
            torch_threads(1),
            whole_file(out) as temporary,
            imageio.v2.get_writer(temporary, fps=speed, codec="libx264", quality=7, macro_block_size=2) as film,
            Progress(max_steps, "film", "steps") as bar,
        ):
            scene = _Scene(task, list(policies), env, film, bar)
            each = _Each([policy([seed]) for policy in policies.values()])
            return rollout(task, env, each, [seed] * len(policies), max_steps, observer=scene)
    finally:
        env.close()


def holding(policy: PolicyFor, steps: int) -> PolicyFor:
    """``policy`` for one environment, with every action repeated for ``steps`` steps.

    For an agent whose actions last for several frames, filmed in a world that is stepped frame by frame.
    """
    return lambda seeds: _Holding(policy(seeds), steps)


class _Holding:
    """Asks a policy of one environment for an action at every so many steps only."""

    def __init__(self, policy: Policy, steps: int) -> None:
        self._policy, self._steps, self._left = policy, steps, 0
        self._held = np.empty(0)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        if not self._left:
            self._held, self._left = self._policy.act(observations, rows), self._steps
        self._left -= 1
        return self._held


def _rendered(env: SyncVectorEnv) -> tuple[np.ndarray, ...]:
    """The pictures of all rows."""
    return cast(tuple[np.ndarray, ...], env.render())


class _Each:
    """A policy that lets every row act by a policy of its own."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        first = np.zeros(1, dtype=np.int64)
        actions = [
            self._policies[row].act(observations.of(rows == row), first)  # a policy of one environment
            for row in rows.tolist()
        ]
        return np.concatenate(actions)


class _Scene:
    """An observer that draws the pictures of all rows; a row that has ended keeps its last picture."""

    def __init__(self, task: Task, names: Sequence[str], env: SyncVectorEnv, film: object, bar: Progress) -> None:
        self._task, self._names, self._env, self._film, self._bar = task, names, env, film, bar
        self._scores, self._step = np.zeros(len(names)), 0
        self._pictures: list[np.ndarray] = []

    def start(self, observations: Observations) -> None:
        self._pictures = [visible(self._task, picture) for picture in _rendered(self._env)]
        self._draw()

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        self._scores[rows] += rewards
        self._step += 1
        self._bar.advance(1)
        if self._step % _EVERY == 0:
            rendered = _rendered(self._env)
            for row in rows.tolist():
                self._pictures[row] = visible(self._task, rendered[row])
            self._draw()

    def _draw(self) -> None:
        width, height = _PANEL
        size = (len(self._names) * (width + _MARGIN) + _MARGIN, _HEAD + height + _MARGIN)
        image = Image.new("RGB", size, BACKGROUND)
        for index, (name, picture) in enumerate(zip(self._names, self._pictures, strict=True)):
            left = _MARGIN + index * (width + _MARGIN)
            image.paste(Image.fromarray(picture).resize(_PANEL, Image.Resampling.BICUBIC), (left, _HEAD))
            write(image, name, (left, _HEAD - 14), 22, TEXT)
            write(image, f"score {self._scores[index]:,.0f}", (left + width, _HEAD - 14), 18, QUIET, align=1.0)
        self._film.append_data(np.asarray(image))  # type: ignore[attr-defined]
