"""Playing a world of numbered choices, each in your own time, beside a rule that plays the same episode."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.execution.environments import make_envs
from worldmodels.play.scene import Panel, ScenePainter
from worldmodels.play.viewer import Viewer
from worldmodels.play.world import EpisodeViewer, WorldViewer
from worldmodels.tasks import Task
from worldmodels.tasks.base import Observations, playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

_SHOWN_PER_SECOND = 30
"""Keys and clicks are answered at this rate, however slow the automatic players are."""
_ROWS = np.arange(2)


def viewer_of(task: Task, seed: int, save: Path | None = None, agent: "Agent | str | None" = None) -> Viewer:
    """The viewer with which people play the real world: on its board if it has one, else with held keys."""
    kind = WorldViewer if playing_of(task).board() is None else ChoiceViewer
    return kind(task, seed, save, agent)


def settled(typed: str, choices: int) -> bool:
    """Whether no longer number below ``choices`` starts with what was typed, so that it needs no Enter."""
    return not any(number != typed and number.startswith(typed) for number in map(str, range(choices)))


class ChoiceViewer(EpisodeViewer):
    """Numbers and clicks choose; the agent or the task's first rule choose at the task's speed until you do again.

    Arguments as of :class:`WorldViewer`, for a task whose people choose on a board.
    """

    def __init__(self, task: Task, seed: int, save: Path | None = None, agent: "Agent | str | None" = None) -> None:
        board = playing_of(task).board()
        if board is None:
            raise UserError(f"{task.name} has no board to choose on; it is played with held keys")
        super().__init__(task, seed, save, agent, ScenePainter(board.size, message_line=True))
        self.board, self.rule_name = board, task.rules[0].replace("-", " ")
        self._rule_task, self._rule_for = task.rule(task.rules[0])
        # Two copies of every episode as the rule sees it: in row 0 the person's choices are made, in row 1 the rule's.
        self._both = make_envs(self._rule_task, 2, self._rule_task.reference_backend)
        self.typed, self.rule_acts = "", False
        self.hovered: int | None = None
        self._ticks, self._spare_enter = 0, False
        self._drawn: tuple[object, np.ndarray] | None = None
        self.help = self._keys()
        self.new_episode()

    @property
    def frames_per_second(self) -> int:
        """Faster than the world, because a person types."""
        return max(_SHOWN_PER_SECOND, self.playing.frames_per_second)

    @property
    def player(self) -> str:
        """Who chooses."""
        return "agent" if self.agent_acts else self.rule_name if self.rule_acts else "you"

    @property
    def pointed(self) -> int | None:
        """The choice that the person thinks of."""
        return int(self.typed) if self.typed else self.hovered

    def _start(self) -> None:
        super()._start()
        self._states, _ = self._both.reset(seed=[self.seed, self.seed])  # type: ignore[arg-type]
        self._rule = self._rule_for([self.seed, self.seed])
        self.rule_score, self.typed = 0.0, ""

    def _observe(self, raw: np.ndarray) -> None:
        super()._observe(raw)
        mask = self.task.action_mask(self.observations.frames)
        self.action_mask = np.ones(self.task.control_size, bool) if mask is None else mask[0]

    def press(self, key: str) -> None:
        """A digit is typed, any other key is a command."""
        if len(key) == 1 and key.isascii() and key.isdigit():
            self._type(key)
        else:
            self._command(key)

    def point(self, place: tuple[int, int]) -> None:
        """The choice under the pointer is thought of."""
        self.hovered = self.board.choice_at(place)

    def click(self, place: tuple[int, int]) -> None:
        """The choice under the pointer is made."""
        clicked = self.board.choice_at(place)
        if clicked is not None:
            self._choose(clicked)

    def lose_focus(self) -> None:
        """Only the automatic players have to wait; a person chooses in their own time."""
        self.paused = self.player != "you"

    def _type(self, digit: str) -> None:
        if self.over:
            return
        self.typed, self.message = self.typed + digit, ""
        if settled(self.typed, len(self.action_mask)):
            self._choose(int(self.typed))
            self._spare_enter = True

    def _command(self, key: str) -> None:
        # Who is used to Enter after a number must not lose the episode where the number needed none.
        spare, self._spare_enter = self._spare_enter and not self.over, False
        if key == "enter" and self.typed:
            self._choose(int(self.typed))
        elif key == "enter" and spare:
            pass
        elif key == "n":
            self.new_episode()
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "b":
            self._hand_over(agent=False, rule=not self.rule_acts)
        elif key == "p" and self.player == "you":
            self.message = f"nothing to pause: it is your turn; a lets the agent choose, b {self.rule_name}"
        else:
            super()._command(key)

    def _toggle_agent(self) -> None:
        before = self.agent_acts
        super()._toggle_agent()
        if self.agent_acts != before:
            self._hand_over(agent=self.agent_acts, rule=False)

    def _hand_over(self, agent: bool, rule: bool) -> None:
        self.agent_acts, self.rule_acts = agent, rule
        self.typed, self.message, self.paused = "", "", False

    def _choose(self, choice: int) -> None:
        """What a person chose; a choice that may not be made changes nothing but the message."""
        if self.over:
            return
        self._hand_over(agent=False, rule=False)
        if choice >= len(self.action_mask):
            self.message = f"expected a number from 0 to {len(self.action_mask) - 1}, got {choice}"
        elif not self.action_mask[choice]:
            self.message = self.board.objection(self._states[0], choice)
        else:
            self._play(choice)

    def _tick(self) -> None:
        """A choice of the automatic player, when it is time for one."""
        self._ticks += 1
        due = self._ticks % max(1, self.frames_per_second // self.playing.frames_per_second) == 0
        if due and self.player != "you":
            self._play(None)

    def _play(self, choice: int | None) -> None:
        """Make a choice, that of the automatic player where it is None, while the rule makes its own beside it."""
        ruled = self._rule.act(Observations(self._rule_task, self._states), _ROWS)
        agents = self._agents_choice()
        if choice is None:
            choice = int(agents if self.agent_acts else ruled[0])
        self._states, rewards, *_ = self._both.step(np.array([choice, ruled[1]]))
        self.rule_score += float(rewards[1])
        self._step(np.int64(choice))

    def _panels(self) -> tuple[Panel, ...]:
        mask = self.action_mask & (not self.over)
        shown = (self._states[0].tobytes(), mask.tobytes(), self.pointed)
        if self._drawn is None or self._drawn[0] != shown:
            self._drawn = shown, np.array(self.board.draw(self._states[0], mask, self.pointed))
        return (Panel(self._drawn[1]),)

    def message_line(self) -> str:
        """What is typed, what went wrong, or whose turn it is."""
        if self.typed:
            return f"{self.typed}_   a second digit, or enter for {self.typed}"
        if self.message or self.over:
            return self.message
        return "your turn" if self.player == "you" else f"{self.player} chooses"

    def readings(self) -> dict[str, str]:
        """Both scores, the step, what the world tells, and who chooses."""
        known = {"score": f"{self.score:.0f}", self.rule_name: f"{self.rule_score:.0f}"}
        step = {"step": f"{self.step} / {self.task.max_steps}"}
        return {**known, **step, **self.world_readings(), "player": self.player}

    def _banner(self) -> str | None:
        if not self.over:
            return super()._banner()
        ended = f"finished with {self.score:.0f}, {self.rule_name} with {self.rule_score:.0f}"
        return f"{ended}: enter for a new {self._word}"

    def _keys(self) -> str:
        choices = self.task.control_size
        longer = [str(digit) for digit in range(10) if not settled(str(digit), choices)]
        enter = f" (after {' or '.join(longer)} a second digit or enter)" if longer else ""
        keys = f"a agent    b {self.rule_name}    p pause    n new {self._word}    esc quit"
        return f"0 to {choices - 1} or a click choose{enter}    {keys}"

    def close(self) -> None:
        """End both worlds."""
        super().close()
        self._both.close()
