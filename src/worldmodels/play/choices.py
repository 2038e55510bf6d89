"""Turn-based playing of a world with numbered choices, beside a rule that plays the same episode."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
"""How often keys and clicks are handled, even if the automatic players choose less often."""
_ROWS = np.arange(2)


def viewer_of(task: Task, seed: int, save: Path | None = None, agent: "Agent | str | None" = None) -> Viewer:
    """The viewer for playing the real world: a ChoiceViewer if the task has a board and a rule, else a WorldViewer."""
    has_board = playing_of(task).board() is not None and bool(task.rules)
    return (ChoiceViewer if has_board else WorldViewer)(task, seed, save, agent)


def settled(typed: str, choices: int) -> bool:
    """Whether a typed number is complete without Enter: no longer number below ``choices`` starts with it."""
    return not any(number != typed and number.startswith(typed) for number in map(str, range(choices)))


class ChoiceViewer(EpisodeViewer):
    """A person chooses by typing numbers or clicking; until the next choice, the agent or the first rule can take over.

    These automatic players choose at the task's speed. The arguments are those of :class:`WorldViewer`. Raises
    :class:`UserError` for a task without a board or without rules.
    """

    def __init__(self, task: Task, seed: int, save: Path | None = None, agent: "Agent | str | None" = None) -> None:
        board = playing_of(task).board()
        if board is None:
            raise UserError(f"{task.name} has no board to choose on; it is played with held keys")
        if not task.rules:
            raise UserError(f"{task.name} has no rule to be played against; it is played with held keys")
        super().__init__(task, seed, save, agent, ScenePainter(board.size, message_line=True))
        self.board, self.rule_name = board, task.rules[0].replace("-", " ")
        self._rule_task, self._rule_for = task.rule(task.rules[0])
        # Two copies of every episode with the rule's observations: row 0 is the one that is shown, row 1 the rule's.
        self._both = make_envs(self._rule_task, 2, self._rule_task.reference_backend)
        self.typed, self.rule_acts = "", False
        self.hovered: int | None = None
        self._ticks, self._spare_enter = 0, False
        self._drawn: tuple[object, np.ndarray] | None = None
        self.new_episode()

    @property
    def help(self) -> str:
        """What the keys do."""
        return self._keys()

    @property
    def frames_per_second(self) -> int:
        """At least 30, so that typing and clicking are answered quickly."""
        return max(_SHOWN_PER_SECOND, self.playing.frames_per_second)

    @property
    def player(self) -> str:
        """Who chooses: "agent", the name of the rule, or "you"."""
        return "agent" if self.agent_acts else self.rule_name if self.rule_acts else "you"

    @property
    def pointed(self) -> int | None:
        """The choice that the typed number or the mouse points to."""
        return int(self.typed) if self.typed else self.hovered

    def _start(self) -> None:
        super()._start()
        self._states, _ = self._both.reset(seed=[self.seed, self.seed])  # type: ignore[arg-type]
        self._rule = self._rule_for([self.seed, self.seed])
        self.rule_score, self.typed = 0.0, ""

    def _observe(self, raw: np.ndarray, info: Mapping[str, Any]) -> None:
        super()._observe(raw, info)
        mask = self.task.action_mask(self.observations.frames)
        self.action_mask = np.ones(self.task.control_size, bool) if mask is None else mask[0]

    def press(self, key: str) -> None:
        """A key goes down: a digit is part of a number, any other key is a command."""
        if len(key) == 1 and key.isascii() and key.isdigit():
            self._type(key)
        else:
            self._command(key)

    def point(self, place: tuple[int, int]) -> None:
        """The mouse moves to ``place``: point to the choice there."""
        self.hovered = self.board.choice_at(place)

    def click(self, place: tuple[int, int]) -> None:
        """The person clicks at ``place``: make the choice there."""
        clicked = self.board.choice_at(place)
        if clicked is not None:
            self._choose(clicked)

    def lose_focus(self) -> None:
        """Pause the automatic players; without them the world waits for the person anyway."""
        self.paused = self.player != "you"

    def _type(self, digit: str) -> None:
        if self.over:
            return
        self.typed, self.message = self.typed + digit, ""
        if settled(self.typed, len(self.action_mask)):
            self._choose(int(self.typed))
            self._spare_enter = True

    def _command(self, key: str) -> None:
        # An Enter after a number that was complete without it must not start a new episode.
        spare, self._spare_enter = self._spare_enter and not self.over, False
        if key == "enter" and self.typed:
            self._choose(int(self.typed))
        elif key == "enter" and spare:
            pass
        elif key == "n":
            self.new_episode()
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "a":  # free here, because nothing is steered
            self._toggle_agent()
        elif key == "b":
            self._hand_over(agent=False, rule=not self.rule_acts)
        elif key == "p" and self.player == "you":
            self.message = f"nothing to pause: it is your turn; space lets the agent choose, b {self.rule_name}"
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
        """Make a person's choice, or say why it is not allowed; either way the person takes over."""
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
        """Let the automatic player choose, if it is time."""
        self._ticks += 1
        due = self._ticks % max(1, self.frames_per_second // self.playing.frames_per_second) == 0
        if due and self.player != "you":
            self._play(None)

    def _play(self, choice: int | None) -> None:
        """Make ``choice``, or that of the automatic player if it is None; the rule makes its own choice in row 1."""
        rule_choices = self._rule.act(Observations(self._rule_task, self._states), _ROWS)
        agent_choice = self._agent_action()
        if choice is None:
            choice = int(agent_choice if self.agent_acts else rule_choices[0])
        self._states, rewards, *_ = self._both.step(np.array([choice, rule_choices[1]]))
        self.rule_score += float(rewards[1])
        self._step(np.int64(choice))

    def _panels(self) -> tuple[Panel, ...]:
        mask = self.action_mask & (not self.over)
        shown = (self._states[0].tobytes(), mask.tobytes(), self.pointed)
        if self._drawn is None or self._drawn[0] != shown:
            self._drawn = shown, np.array(self.board.draw(self._states[0], mask, self.pointed))
        return (Panel(self._drawn[1]),)

    def message_line(self) -> str:
        """The typed number, why a choice was not allowed, or whose turn it is."""
        if self.typed:
            return f"{self.typed}_   a second digit, or enter for {self.typed}"
        if self.message or self.over:
            return self.message
        return "your turn" if self.player == "you" else f"{self.player} chooses; a number or a click takes over"

    def readings(self) -> dict[str, str]:
        """Both scores, the step, the values of the world, and who chooses."""
        scores = {"score": f"{self.score:.0f}", self.rule_name: f"{self.rule_score:.0f}"}
        step = {"step": f"{self.step} / {self.task.max_steps}"}
        return {**scores, **step, **self.world_readings(), "player": self.player}

    def _banner(self) -> str | None:
        if not self.over:
            return super()._banner()
        ended = f"finished with {self.score:.0f}, {self.rule_name} with {self.rule_score:.0f}"
        return f"{ended}: enter for a new {self._word}"

    def _keys(self) -> str:
        choices = self.task.control_size
        longer = [str(digit) for digit in range(10) if not settled(str(digit), choices)]
        enter = f" (after {' or '.join(longer)} a second digit or enter)" if longer else ""
        keys = f"space agent    b {self.rule_name}    p pause    n new {self._word}    esc quit"
        return f"0 to {choices - 1} or a click choose{enter}    {keys}"

    def close(self) -> None:
        """Close the environments."""
        super().close()
        self._both.close()
