"""Record an agent: the world, V's reconstruction and M's prediction, as a video, a GIF or a contact sheet."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from worldmodels.core.device import torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.progress import Progress
from worldmodels.execution.environments import make_envs
from worldmodels.render.encoders import EVERY, SUFFIXES, encoder, whole_file
from worldmodels.render.picture import Composer, Moment
from worldmodels.render.stock import stock_env, visible
from worldmodels.rollouts import Rollouts, rollout
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent


def record(
    agent: "Agent",
    out: Path,
    seed: int,
    backend: str | None = None,
    max_steps: int | None = None,
    every: int | None = None,
) -> dict[str, Any]:
    """Play one episode and write it to ``out`` (.mp4, .gif or .png); frames are encoded during the episode.

    backend: None means the task's reference backend, which renders the sharpest picture; max_steps: None means the
    task's limit; every: show only every so many steps (None: 1 in an .mp4, 5 otherwise). Returns out, task, backend,
    seed, return, steps, frames and terminated. Raises :class:`UserError` for a file that cannot be written.
    """
    task, out = agent.task, Path(out)
    chosen = backend or task.reference_backend
    limit = min(max_steps or task.max_steps, task.max_steps)
    if (max_steps is not None and max_steps < 1) or (every is not None and every < 1):
        raise UserError(f"expected at least 1 step and every at least 1, got {max_steps} and {every}")
    check_target(out)
    stride = every or EVERY[out.suffix.lower()]
    env = watched_env(task, chosen)
    shown = 0
    try:
        composer = Composer(task, agent.vision.latent_size)
        with whole_file(out) as temporary:
            writer = encoder(temporary, out.suffix.lower(), composer, playing_of(task).frames_per_second / stride)
            with contextlib.closing(writer), Progress(limit, "record", "steps") as bar:

                def show(moment: Moment) -> None:
                    nonlocal shown
                    if moment.step % stride == 0 or moment.action is None:
                        writer.add(moment)
                        shown += 1
                    if moment.step:
                        bar.advance(1, score=moment.score)

                result = watch(agent, env, seed, limit, show, stride)
                writer.finish()
    finally:
        env.close()
    return {
        "out": str(out),
        "task": task.name,
        "backend": chosen,
        "seed": seed,
        "return": float(result.returns[0]),
        "steps": int(result.lengths[0]),
        "frames": shown,
        "terminated": bool(result.terminated[0]),
    }


def watched_env(task: Task, backend: str) -> VectorEnv:
    """One environment; for the reference backend "gymnasium" it is the stock one in this process, which can render."""
    if backend == task.reference_backend == "gymnasium":
        return SyncVectorEnv([lambda: stock_env(task)], autoreset_mode=AutoresetMode.DISABLED)
    return make_envs(task, 1, backend)


def watch(
    agent: "Agent", env: VectorEnv, seed: int, max_steps: int, show: Callable[[Moment], None], stride: int = 1
) -> Rollouts:
    """Play one episode and call ``show`` with its moments: T+1 for T steps, the last one without an action.

    Pictures are made only at every ``stride``-th step, because they take most of the time; other moments are blank.
    """
    watcher = _Watcher(agent, env, show, stride)
    with torch_threads(1):
        result = rollout(agent.task, env, watcher, [seed], max_steps, observer=watcher)
        watcher.finish()
    return result


class _Watcher:
    """Makes the moments of a rollout, of which it is both the policy, by the agent, and the observer.

    After the agent has acted at step t, z of frame t and M's prediction of frame t+1 are known; the prediction is kept
    for one step, so that it is shown beside the frame that it predicts.
    """

    def __init__(self, agent: "Agent", env: VectorEnv, show: Callable[[Moment], None], stride: int) -> None:
        self._agent, self._env, self._show, self._stride = agent, env, show, stride
        self._policy = agent.policy(1)
        self._policy.reset()
        self._renders = isinstance(env, SyncVectorEnv)
        self._step, self._score = 0, 0.0
        self._expected: Any = None

    def start(self, observations: Observations) -> None:
        self._last = observations

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        self._step += 1
        self._score += float(rewards[0])
        self._last = after

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        actions = self._policy.act(observations)
        self._moment(observations, self._agent.task.memory_action(actions)[0])
        return actions

    def finish(self) -> None:
        """Show the frame after the last action. The policy encodes it; the action that it chooses is not taken."""
        self._policy.act(self._last)
        self._moment(self._last, None, last=True)

    def _moment(self, observations: Observations, action: np.ndarray | None, last: bool = False) -> None:
        is_shown = last or self._step % self._stride == 0
        blank = np.zeros((64, 64, 3), np.uint8)
        reconstruction = self._agent.decode(self._policy.latents)[0] if is_shown else blank
        expected = self._agent.decode(self._expected)[0] if is_shown and self._expected is not None else None
        world = self._picture(observations) if is_shown else blank
        self._show(Moment(self._step, self._score, world, reconstruction, expected, action))
        self._expected = self._policy.expected_latents()

    def _picture(self, observations: Observations) -> np.ndarray:
        pictures = cast(tuple[np.ndarray, ...], self._env.render()) if self._renders else observations.raw
        return visible(self._agent.task, np.asarray(pictures[0]))


def check_target(out: Path) -> None:
    """Raise :class:`UserError` for a file that cannot be written, before any work is done."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot tell the format of {out}: expected a name that ends in .mp4, .gif or .png")
    if not out.parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist; create it or choose another --out")
    if out.is_dir():
        raise UserError(f"{out} is a folder; expected the name of a file to write")
    if out.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            raise UserError("an .mp4 needs ffmpeg: pip install imageio-ffmpeg, or choose a .gif or .png") from None
