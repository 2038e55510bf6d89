"""Record a dream, with the real world beside it that goes through the same actions."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from worldmodels import interrupt
from worldmodels.agent import Agent
from worldmodels.dream.beside import Beside
from worldmodels.errors import UserError
from worldmodels.ink import BACKGROUND, QUIET, TEXT
from worldmodels.progress import Progress, say
from worldmodels.report.encoders import EVERY, encoder, whole_file
from worldmodels.report.picture import Moment, font, stock_env, visible
from worldmodels.report.video import check_target, one_thread

_PANEL, _MARGIN, _HEAD = (480, 360), 24, 64


class _Pair:
    """Draws a moment whose ``seen`` is the dream and whose ``world`` is the real world, if there is one."""

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
    """Let the agent act in its dream and write that to ``out`` (.mp4 or .gif), beside what the real world makes of it.

    Returns out, seed, temperature, steps, dream_score and real_score (None where the real world cannot be run).
    """
    out = Path(out)
    check_target(out)
    if out.suffix.lower() == ".png":
        raise UserError(f"expected a name that ends in .mp4 or .gif, got {out}")
    task = agent.task
    stride, limit = every or EVERY[out.suffix.lower()], min(steps or task.max_steps, task.max_steps)
    try:
        env = stock_env(task)
    except UserError as error:
        say(f"the dream alone: {error}")
        env = None
    with contextlib.ExitStack() as stack:
        if env is not None:
            stack.callback(env.close)
        stack.enter_context(one_thread())
        beside = Beside(agent, env, temperature)
        beside.reset(seed)
        pair = _Pair(agent.vision.latent_size, env is None)
        temporary = stack.enter_context(whole_file(out))
        writer = encoder(temporary, out.suffix.lower(), pair, task.frames_per_second / stride)
        bar = stack.enter_context(Progress(limit, "record", "steps"))
        stack.enter_context(contextlib.closing(writer))
        for step in range(limit + 1):
            interrupt.check()
            if step % stride == 0 or beside.over or step == limit:
                picture = beside.real_picture()
                frame = beside.dream_frame()
                pair.real_score = beside.real_score
                world = frame if picture is None else visible(task, picture)
                writer.add(Moment(step, beside.dream_score, world, frame, None, None))
            if beside.over or step == limit:
                break
            beside.step(beside.agent_action())
            bar.advance(1, dream=beside.dream_score, real=beside.real_score)
        writer.finish()
    return {
        "out": str(out),
        "seed": seed,
        "temperature": temperature,
        "steps": beside.step_number,
        "dream_score": beside.dream_score,
        "real_score": None if env is None else beside.real_score,
    }
