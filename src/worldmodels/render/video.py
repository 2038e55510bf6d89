"""Record an agent: the world, V's reconstruction and M's prediction, as a video, a GIF or a contact sheet."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from worldmodels.core.errors import UserError
from worldmodels.core.progress import Progress
from worldmodels.execution.environments import make_envs
from worldmodels.render.encoders import encoder, usual_every
from worldmodels.render.moment import Moment
from worldmodels.render.picture import Composer
from worldmodels.render.stock import stock_env
from worldmodels.render.target import check_target, whole_file
from worldmodels.render.watcher import watch
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

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
    task's limit; every: show only every so many steps (None: 1 in an .mp4, 5 in a .png, as many as make about ten
    frames per second in a .gif). Videos and GIFs play in real time. Returns out, task, backend, seed, return, steps,
    frames and terminated. Raises :class:`UserError` for a file that cannot be written.
    """
    task, out = agent.task, Path(out)
    chosen = backend or task.reference_backend
    limit = min(max_steps or task.max_steps, task.max_steps)
    if (max_steps is not None and max_steps < 1) or (every is not None and every < 1):
        raise UserError(f"expected at least 1 step and every at least 1, got {max_steps} and {every}")
    check_target(out)
    suffix, rate = out.suffix.lower(), playing_of(task).frames_per_second
    stride = every or usual_every(suffix, rate)
    env = watched_env(task, chosen)
    shown = 0
    try:
        with whole_file(out) as temporary:
            writer = encoder(temporary, suffix, Composer(task, agent.vision.latent_size), rate / stride)
            with contextlib.closing(writer), Progress(limit, "record", "steps") as bar:

                def show(moment: Moment) -> None:
                    nonlocal shown
                    writer.add(moment)
                    shown += 1

                result = watch(agent, env, seed, limit, show, stride, lambda score: bar.advance(1, score=score))
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
