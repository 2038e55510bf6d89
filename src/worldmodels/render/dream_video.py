"""Record a dream, and beside it the real world with the same actions."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodels.agent import Agent
from worldmodels.core import interrupt
from worldmodels.core.device import torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.progress import Progress
from worldmodels.core.theme import BACKGROUND, QUIET, TEXT, text_width, write
from worldmodels.dream.side_by_side import SideBySide
from worldmodels.render.actions import ActionPainter, write_number
from worldmodels.render.encoders import encoder, usual_every
from worldmodels.render.moment import Moment
from worldmodels.render.picture import FOOT, HEAD, MARGIN, PANEL_SIZE, panel
from worldmodels.render.stock import stock_env, visible
from worldmodels.render.target import check_target, whole_file
from worldmodels.tasks.base import Playing, playing_of

_SAME = "both get the same actions"


class _Pair:
    """Draws moments: ``seen`` is the frame of the dream, ``world`` the picture of the real world (unless ``alone``)."""

    gif_scale = 0.5

    def __init__(self, playing: Playing, alone: bool) -> None:
        self._alone, self._actions = alone, ActionPainter(playing)
        panels = 1 if alone else 2
        self.size = (panels * PANEL_SIZE[0] + (panels + 1) * MARGIN, HEAD + PANEL_SIZE[1] + FOOT)
        plain = Image.new("RGB", self.size, BACKGROUND)
        for index, name in enumerate(["The dream", "The real world"][:panels]):
            write(plain, name, (MARGIN + index * (PANEL_SIZE[0] + MARGIN), 46), 26, TEXT)
        if not alone:
            after = 2 * MARGIN + PANEL_SIZE[0] + text_width("The real world", 26) + 14
            write(plain, _SAME, (after, 46), 18, QUIET)
        self._plain = np.array(plain)
        self.real_score = 0.0

    def draw(self, moment: Moment) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""
        picture, bottom = self._plain.copy(), HEAD + PANEL_SIZE[1]
        picture[HEAD:bottom, MARGIN : MARGIN + PANEL_SIZE[0]] = panel(moment.seen, PANEL_SIZE)
        foot = Image.new("RGB", (self.size[0], FOOT), BACKGROUND)
        write_number(foot, MARGIN, 30, "score", f"{moment.score:,.0f}")
        write_number(foot, MARGIN + 170, 30, "step", f"{moment.step:,}")
        right = 2 * MARGIN + PANEL_SIZE[0]
        if not self._alone:
            picture[HEAD:bottom, right:-MARGIN] = panel(moment.world, PANEL_SIZE, sharp=True)
            write_number(foot, right, 30, "score", f"{self.real_score:,.0f}")
        if moment.action is not None:
            # The action stands between both halves, because it is that of both.
            self._actions.draw(foot, MARGIN, self.size[0] - MARGIN, 66, moment.action)
        picture[bottom:] = np.asarray(foot)
        return picture

    def sheet(self, moments: Sequence[Moment]) -> Image.Image:
        """The last moment alone: dreams have no contact sheets."""
        return Image.fromarray(self.draw(moments[-1]))


def record_dream(
    agent: Agent,
    out: Path,
    seed: int,
    temperature: float = 1.0,
    steps: int | None = None,
    every: int | None = None,
    dropout: float = 0.0,
) -> dict[str, Any]:
    """Let the agent act in its dream, beside the real world, and write the pictures to ``out`` (.mp4 or .gif).

    steps: longest dream (None: the task's limit); every: show only every so many steps (None: 1 in an .mp4, as many as
    make about ten frames per second in a .gif); dropout: share of z and h that M does not see in the dream. Films play
    in real time. Returns out, seed, temperature, dropout, steps, dream_score and real_score (None if the real world
    cannot be opened on this machine). Raises :class:`UserError` for a file that cannot be written and an agent that
    cannot dream.
    """
    out = Path(out)
    if (steps is not None and steps < 1) or (every is not None and every < 1):
        raise UserError(f"expected at least 1 step and every at least 1, got {steps} and {every}")
    check_target(out)
    if out.suffix.lower() == ".png":
        raise UserError(f"expected a name that ends in .mp4 or .gif, got {out}")
    task, playing = agent.task, playing_of(agent.task)
    suffix, rate = out.suffix.lower(), playing.frames_per_second
    stride, limit = every or usual_every(suffix, rate), min(steps or task.max_steps, task.max_steps)
    try:
        env = stock_env(task)
    except UserError as error:
        say(f"the dream alone: {error}")
        env = None
    with contextlib.ExitStack() as stack:
        if env is not None:
            stack.callback(env.close)
        stack.enter_context(torch_threads(1))
        both = SideBySide(agent, env, temperature, dropout)
        both.reset(seed)
        pair = _Pair(playing, env is None)
        temporary = stack.enter_context(whole_file(out))
        writer = encoder(temporary, suffix, pair, rate / stride)
        bar = stack.enter_context(Progress(limit, "record", "steps"))
        stack.enter_context(contextlib.closing(writer))
        for step in range(limit + 1):
            interrupt.check()
            last = both.over or step == limit
            action = None if last else both.agent_action()
            if step % stride == 0 or last:
                picture = both.real_picture()
                frame = both.dream_frame()
                pair.real_score = both.real_score
                world = frame if picture is None else visible(task, picture)
                numbers = None if action is None else task.memory_action(action[None])[0]
                writer.add(Moment(step, both.dream_score, world, frame, None, numbers))
            if action is None:
                break
            both.step(action)
            bar.advance(1, dream=both.dream_score, **({} if env is None else {"real": both.real_score}))
        writer.finish()
    return {
        "out": str(out),
        "seed": seed,
        "temperature": temperature,
        "dropout": dropout,
        "steps": both.step_number,
        "dream_score": both.dream_score,
        "real_score": None if env is None else both.real_score,
    }
