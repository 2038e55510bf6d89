"""Record a dream, and beside it the real world with the same actions."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from worldmodels.agent import Agent
from worldmodels.core import interrupt
from worldmodels.core.device import torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.progress import Progress
from worldmodels.core.theme import BACKGROUND, QUIET, TEXT, font
from worldmodels.dream.side_by_side import SideBySide
from worldmodels.render.encoders import EVERY, encoder, whole_file
from worldmodels.render.picture import Moment
from worldmodels.render.stock import stock_env, visible
from worldmodels.render.video import check_target
from worldmodels.tasks.base import playing_of

_PANEL, _MARGIN, _HEAD = (480, 360), 24, 64


class _Pair:
    """Draws moments: ``seen`` is the frame of the dream, ``world`` the picture of the real world (unless ``alone``)."""

    def __init__(self, latent_size: int, alone: bool) -> None:
        self.latent_size, self._alone = latent_size, alone
        panels = 1 if alone else 2
        self.size = (panels * _PANEL[0] + (panels + 1) * _MARGIN, _HEAD + _PANEL[1] + _MARGIN)
        self.real_score = 0.0

    def draw(self, moment: Moment) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""
        image = Image.new("RGB", self.size, BACKGROUND)
        draw = ImageDraw.Draw(image)
        worlds = [("The dream", moment.seen, moment.score)]
        if not self._alone:
            worlds.append(("The real world", moment.world, self.real_score))
        for index, (name, picture, score) in enumerate(worlds):
            left = _MARGIN + index * (_PANEL[0] + _MARGIN)
            image.paste(Image.fromarray(picture).resize(_PANEL, Image.Resampling.BICUBIC), (left, _HEAD))
            draw.text((left, 46), name, TEXT, font(26), anchor="ls")
            draw.text((left + _PANEL[0], 46), f"{score:,.0f}", QUIET, font(24), anchor="rs")
        return np.asarray(image)


def record_dream(
    agent: Agent, out: Path, seed: int, temperature: float = 1.0, steps: int | None = None, every: int | None = None
) -> dict[str, Any]:
    """Let the agent act in its dream, beside the real world, and write the pictures to ``out`` (.mp4 or .gif).

    steps: longest dream (None: the task's limit); every: show only every so many steps (None: 1 in an .mp4, 5 in a
    .gif). Returns out, seed, temperature, steps, dream_score and real_score (None if the real world cannot be opened on
    this machine). Raises :class:`UserError` for a file that cannot be written and an agent that cannot dream.
    """
    out = Path(out)
    if (steps is not None and steps < 1) or (every is not None and every < 1):
        raise UserError(f"expected at least 1 step and every at least 1, got {steps} and {every}")
    check_target(out)
    if out.suffix.lower() == ".png":
        raise UserError(f"expected a name that ends in .mp4 or .gif, got {out}")
    task, playing = agent.task, playing_of(agent.task)
    stride, limit = every or EVERY[out.suffix.lower()], min(steps or task.max_steps, task.max_steps)
    try:
        env = stock_env(task)
    except UserError as error:
        say(f"the dream alone: {error}")
        env = None
    with contextlib.ExitStack() as stack:
        if env is not None:
            stack.callback(env.close)
        stack.enter_context(torch_threads(1))
        both = SideBySide(agent, env, temperature)
        both.reset(seed)
        pair = _Pair(agent.vision.latent_size, env is None)
        temporary = stack.enter_context(whole_file(out))
        writer = encoder(temporary, out.suffix.lower(), pair, playing.frames_per_second / stride)
        bar = stack.enter_context(Progress(limit, "record", "steps"))
        stack.enter_context(contextlib.closing(writer))
        for step in range(limit + 1):
            interrupt.check()
            if step % stride == 0 or both.over or step == limit:
                picture = both.real_picture()
                frame = both.dream_frame()
                pair.real_score = both.real_score
                world = frame if picture is None else visible(task, picture)
                writer.add(Moment(step, both.dream_score, world, frame, None, None))
            if both.over or step == limit:
                break
            both.step(both.agent_action())
            bar.advance(1, dream=both.dream_score, **({} if env is None else {"real": both.real_score}))
        writer.finish()
    return {
        "out": str(out),
        "seed": seed,
        "temperature": temperature,
        "steps": both.step_number,
        "dream_score": both.dream_score,
        "real_score": None if env is None else both.real_score,
    }
