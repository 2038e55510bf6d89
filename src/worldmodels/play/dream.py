"""Playing in a dream beside the real world: both get the same actions, which shows how long the dream is realistic."""

import contextlib
from typing import TYPE_CHECKING

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.numbers import score_text
from worldmodels.dream.dreams import check_dream
from worldmodels.dream.side_by_side import SideBySide
from worldmodels.play.scene import Panel, ScenePainter
from worldmodels.play.viewer import WORLD_PANEL, Viewer, action_help, agent_for, check_playable, steering_help
from worldmodels.render.stock import stock_env, visible
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

_PANEL = (600, 450)
_FACTOR, _COLDEST, _HOTTEST = 1.15, 0.05, 4.0
"""Factor by which a key changes the temperature, and the lowest and highest temperature."""


def agent_that_dreams(task: Task, agent: "Agent | str | None", temperature: float) -> "Agent":
    """The agent of :func:`agent_for`, checked for playing in its dreams.

    Raises :class:`UserError` for a task that is played on a board or by no keys, and for an agent that cannot dream so.
    """
    if playing_of(task).board() is not None:
        raise UserError(
            f"{task.name} cannot be played by hand in its dream; dream record {task.name} shows the agent there"
        )
    check_playable(task)
    loaded = agent_for(task, agent)
    check_dream(loaded, temperature, "sample")
    return loaded


class DreamViewer(Viewer):
    """The dream on the left, and on the right the real world, if it can be opened on this machine.

    seed: of the first dream; agent: whose dream it is, or its name or path (None: the task's shipped agent);
    temperature: above 1, dreams are more uncertain than M's predictions; dropout: share of z and h that M does not see.
    Raises :class:`UserError` as :func:`agent_that_dreams` does.
    """

    def __init__(
        self,
        task: Task,
        seed: int,
        agent: "Agent | str | None" = None,
        temperature: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        loaded = agent_that_dreams(task, agent, temperature)
        try:
            env = stock_env(task)
        except UserError as error:
            say(f"the dream alone: {error}")
            env = None
        painter = ScenePainter(WORLD_PANEL if env is None else _PANEL, 1 if env is None else 2, captions=True)
        super().__init__(task, seed, "dream", painter)
        self.side_by_side = SideBySide(loaded, env, temperature, dropout)
        self._steering, self._acting = steering_help(self.playing), action_help(self.playing)
        self.new_episode()

    @property
    def help(self) -> str:
        """What the keys do, and that they take over from the agent."""
        keys = "+ - temperature    p pause    enter new dream    esc quit"
        if self.agent_acts:
            return f"the agent plays: {self._steering} take over    {keys}"
        return f"{self._acting}    space agent    {keys}"

    def _start(self) -> None:
        self.side_by_side.reset(self.seed)
        self._shown: tuple[Panel, ...] | None = None

    @property
    def temperature(self) -> float:
        """The temperature of the dream."""
        return self.side_by_side.dreams.temperature

    def _command(self, key: str) -> None:
        if key == "plus":
            self.side_by_side.dreams.temperature = min(_HOTTEST, self.temperature * _FACTOR)
        elif key == "minus":
            self.side_by_side.dreams.temperature = max(_COLDEST, self.temperature / _FACTOR)
        else:
            super()._command(key)

    def _tick(self) -> None:
        both = self.side_by_side
        both.step(both.agent_action() if self.agent_acts else self._own_action())
        self._shown = None
        if both.over:
            self.over = True
            self.scores.append(both.dream_score)
            real = f", {score_text(both.real_score)} in the real world" if both.env is not None else ""
            say(f"dream {len(self.scores)}: score {score_text(both.dream_score)}{real}")

    def _panels(self) -> tuple[Panel, ...]:
        if self._shown is None:
            both = self.side_by_side
            dream = Panel(both.dream_frame(), _caption("the dream", both.dream_score, both.dream_over))
            picture = both.real_picture()
            self._shown = (dream,)
            if picture is not None:
                caption = _caption("the real world", both.real_score, both.real_over)
                self._shown = dream, Panel(visible(self.task, picture), caption)
        return self._shown

    def readings(self) -> dict[str, str]:
        """The step, the temperature, and who acts."""
        step = f"{self.side_by_side.step_number}"
        return {"step": step, "temperature": f"{self.temperature:.2f}", "player": self.player}

    def close(self) -> None:
        """Close the real environment."""
        if self.side_by_side.env is not None:
            with contextlib.suppress(Exception):
                self.side_by_side.env.close()


def _caption(name: str, score: float, over: bool) -> str:
    return f"{name}: {score:.0f}{'  (ended)' if over else ''}"
