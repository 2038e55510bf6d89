"""Play a world of numbered choices, each in your own time, with a rule that plays the same episode beside you."""

from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.ink import ACCENT, BACKGROUND, QUIET, TEXT, write
from worldmodels.play import Game
from worldmodels.tasks import Board, Task

_FOOT = 132
_DRAWN_PER_SECOND = 30
"""Keys and the mouse are answered at this rate, whatever the speed of the automatic players."""


def window_size(board: Board) -> tuple[int, int]:
    """Of the window with this board, (width, height) in pixels."""
    return board.size[0], board.size[1] + _FOOT


def settled(typed: str, choices: int) -> bool:
    """Whether no longer number below ``choices`` begins with what was typed, so that it needs no Enter."""
    return not any(number != typed and number.startswith(typed) for number in map(str, range(choices)))


class ChoiceGame(Game):
    """Numbers and clicks choose; the agent or the task's first rule choose at the task's speed until you do again."""

    def __init__(self, task: Task, board: Board, seed: int, save: Path | None, agent: str | None) -> None:
        self.board, self.rule_name = board, task.rules[0].replace("-", " ")
        world, self._make_rule = task.rule(task.rules[0])
        # Two copies of every episode as the rule sees it: in row 0 the person's choices are made, in row 1 the rule's.
        self._beside = world.make(2, world.reference_backend)
        self.typed, self.rule_chooses = "", False
        self.hovered: int | None = None
        self._beat, self._spare_enter = 0, False
        super().__init__(task, seed, save, agent)

    @property
    def frames_per_second(self) -> int:
        """Faster than the world, because a person types."""
        return max(_DRAWN_PER_SECOND, self.task.frames_per_second)

    def new_track(self) -> None:
        """Start the next episode, for both."""
        super().new_track()
        self._states, _ = self._beside.reset(seed=[self.seed, self.seed])  # type: ignore[arg-type]
        self._rule = self._make_rule([self.seed, self.seed])
        self.rule_score, self.typed = 0.0, ""
        self.allowed = self._allowed()

    def _allowed(self) -> np.ndarray:
        allowed = self.task.allowed(self._frames[-1][None])
        return np.ones(self.task.control_size, bool) if allowed is None else allowed[0]

    @property
    def player(self) -> str:
        """Who chooses."""
        return "agent" if self.agent_drives else self.rule_name if self.rule_chooses else "you"

    @property
    def pointed(self) -> int | None:
        """The choice that the person thinks of."""
        return int(self.typed) if self.typed else self.hovered

    def handle(self, events: list[Any], pygame: Any) -> None:
        """Act on keys, the mouse and the closing of the window."""
        for event in events:
            if event.type == pygame.QUIT:
                self.running = False
            elif event.type == pygame.WINDOWFOCUSLOST:
                self.paused = self.player != "you"
            elif event.type == pygame.MOUSEMOTION:
                self.hovered = self.board.choice_at(event.pos)
            elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                clicked = self.board.choice_at(event.pos)
                if clicked is not None:
                    self._choose(clicked)
            elif event.type == pygame.KEYDOWN:
                # Layouts whose digits need the shift key say the digit in unicode alone.
                digit = _digits(pygame).get(event.key, getattr(event, "unicode", ""))
                if digit.isascii() and digit.isdigit():
                    self._type(digit)
                else:
                    self._command(event.key, pygame)

    def _type(self, digit: str) -> None:
        self.typed, self.note = self.typed + digit, ""
        if settled(self.typed, len(self.allowed)):
            self._choose(int(self.typed))
            self._spare_enter = True

    def _command(self, key: int, pygame: Any) -> None:
        # Who is used to Enter after a number must not lose the episode where the number needed none.
        spare, self._spare_enter = self._spare_enter and not self.over, False
        if key in (pygame.K_RETURN, pygame.K_KP_ENTER) and self.typed:
            self._choose(int(self.typed))
        elif key in (pygame.K_RETURN, pygame.K_KP_ENTER) and spare:
            pass
        elif key == pygame.K_n:
            self.new_track()
        elif key == pygame.K_BACKSPACE:
            self.typed = self.typed[:-1]
        elif key == pygame.K_b:
            self._hand_over(agent=False, rule=not self.rule_chooses)
        elif key == pygame.K_p and self.player == "you":
            self.note = f"nothing to pause: it is your turn; a lets the agent choose, b {self.rule_name}"
        else:
            super()._command(key, pygame)

    def _toggle_agent(self) -> None:
        before = self.agent_drives
        super()._toggle_agent()
        if self.agent_drives != before:
            self._hand_over(agent=self.agent_drives, rule=False)

    def _hand_over(self, agent: bool, rule: bool) -> None:
        self.agent_drives, self.rule_chooses = agent, rule
        self.typed, self.note, self.paused = "", "", False

    def _choose(self, choice: int) -> None:
        """What a person chose; one that is not allowed changes nothing but the note."""
        if self.over:
            return
        self._hand_over(agent=False, rule=False)
        if choice >= len(self.allowed):
            self.note = f"expected a number from 0 to {len(self.allowed) - 1}, got {choice}"
        elif not self.allowed[choice]:
            self.note = self.board.objection(self._states[0], choice)
        else:
            self._play(choice)

    def advance(self) -> None:
        """One choice of the automatic player, when it is time for one."""
        self._beat += 1
        due = self._beat % max(1, self.frames_per_second // self.task.frames_per_second) == 0
        if due and self.player != "you" and not self.paused and not self.over:
            self._play(None)

    def _play(self, choice: int | None) -> None:
        """Make a choice, that of the automatic player where it is None, while the rule makes its own beside it."""
        ruled = self._rule.act(self._states, np.arange(2))
        # The agent watches even when others choose, as in other worlds.
        agent = None if self._policy is None else self._policy.act(self.observation[None])[0]
        if choice is None:
            choice = int(agent if self.agent_drives and agent is not None else ruled[0])
        self._states, rewards, *_ = self._beside.step(np.array([choice, ruled[1]]))
        self.rule_score += float(rewards[1])
        self._step(np.int64(choice))
        self.allowed = self._allowed()

    def draw(self, screen: Any, pygame: Any) -> None:
        """The board, and beneath it both scores, what is going on and the keys."""
        screen.fill(BACKGROUND)
        self.board.draw(screen, self._states[0], self.allowed & (not self.over), self.pointed)
        top, left = self.board.size[1], 24
        for name, value, width in self.readings():
            after = write(screen, name, (left, top + 36), 18, QUIET)
            write(screen, value, (after + 8, top + 36), 28, TEXT)
            left += width
        write(screen, self.message(), (24, top + 72), 20, ACCENT)
        write(screen, self._help(), (24, top + 108), 17, QUIET)
        if self.over:
            ended = f"finished with {self.score:.0f}, {self.rule_name} with {self.rule_score:.0f}"
            self._banner(screen, pygame, f"{ended}: enter for a new episode")
        elif self.paused:
            self._banner(screen, pygame, "paused: p to go on")

    def message(self) -> str:
        """The line above the keys: what is typed, what went wrong, or whose turn it is."""
        if self.typed:
            return f"{self.typed}_   a second digit, or enter for {self.typed}"
        return self.note or ("" if self.over else "your turn" if self.player == "you" else f"{self.player} chooses")

    def readings(self) -> list[tuple[str, str, int]]:
        """Name, value and room in pixels of what is shown beneath the board."""
        world = [(name, f"{value:.0f}", 160) for name, value in self.task.readings(self._env).items()]
        return [
            ("score", f"{self.score:.0f}", 170),
            (self.rule_name, f"{self.rule_score:.0f}", 190),
            ("step", f"{self.step} / {self.task.max_steps}", 220),
            *world,
            ("player", self.player, 200),
        ]

    def _help(self) -> str:
        choices = len(self.allowed)
        longer = [str(digit) for digit in range(10) if not settled(str(digit), choices)]
        enter = f" (after {' or '.join(longer)} a second digit or enter)" if longer else ""
        keys = f"a agent    b {self.rule_name}    p pause    n new episode    esc quit"
        return f"0 to {choices - 1} or a click choose{enter}    {keys}"

    def close(self) -> None:
        """Close both worlds."""
        super().close()
        self._beside.close()


def _digits(pygame: Any) -> dict[int, str]:
    pads = {getattr(pygame, f"K_KP{digit}"): str(digit) for digit in range(10)}
    return pads | {getattr(pygame, f"K_{digit}"): str(digit) for digit in range(10)}
