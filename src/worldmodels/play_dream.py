"""Play in the dream, with the real world beside it: both get your keys, and you see how long the dream stays true."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from worldmodels.agent import Agent, load_agent
from worldmodels.dream.beside import Beside
from worldmodels.dream.dreams import check_dream
from worldmodels.errors import UserError
from worldmodels.ink import ACCENT, BACKGROUND, QUIET, write
from worldmodels.play import Game, play_game
from worldmodels.progress import say
from worldmodels.report.picture import stock_env, visible
from worldmodels.seeds import episode_seeds
from worldmodels.tasks import Task

_PANEL = (600, 450)
_HEAD, _FOOT = 48, 92
_HELP = "arrow keys act    a agent    + - temperature    p pause    enter new dream    esc quit"
_STEP = 1.15


def play_dream(
    task: Task,
    seed: int,
    agent: str | None = None,
    temperature: float = 1.0,
    tick: Callable[[Game], None] | None = None,
) -> list[float]:
    """Open the window and dream until it is closed; returns the score of every finished dream."""
    if task.board() is not None:
        raise UserError(
            f"{task.name} cannot be played by hand in its dream; dream record {task.name} shows the agent there"
        )
    loaded = load_agent(agent or task.name)
    if loaded.task.name != task.name:
        raise UserError(f"{agent} is an agent for {loaded.task.name}, not for {task.name}")
    check_dream(loaded, temperature, "sample")
    torch.set_num_threads(1)  # one frame at a time gains nothing from more
    return play_game(task, lambda: DreamGame(task, seed, loaded, temperature), (2 * _PANEL[0], _sizes()), tick)


def _sizes() -> int:
    return _HEAD + _PANEL[1] + _FOOT


class DreamGame(Game):
    """The dream on the left, the real world on the right where it can be run here."""

    def __init__(self, task: Task, seed: int, agent: Agent, temperature: float) -> None:
        self.task, self.running, self.paused, self.note = task, True, False, ""
        self.scores: list[float] = []
        self.agent_drives = False
        self.held: set[str] = set()
        self._seed, self._track = seed, -1
        try:
            env = stock_env(task)
        except UserError as error:
            say(f"the dream alone: {error}")
            env = None
        self.beside = Beside(agent, env, temperature)
        self.new_track()

    def new_track(self) -> None:
        """Begin the next dream."""
        self._track += 1
        self.beside.reset(episode_seeds("play", self._seed, 1, self._track)[0])
        self.over = False

    @property
    def temperature(self) -> float:
        """Of the dream."""
        return self.beside.dreams.temperature

    def _command(self, key: int, pygame: Any) -> None:
        if key in (pygame.K_PLUS, pygame.K_KP_PLUS, pygame.K_EQUALS):
            self.beside.dreams.temperature = min(4.0, self.temperature * _STEP)
        elif key in (pygame.K_MINUS, pygame.K_KP_MINUS):
            self.beside.dreams.temperature = max(0.05, self.temperature / _STEP)
        else:
            super()._command(key, pygame)

    def _toggle_agent(self) -> None:
        self.agent_drives = not self.agent_drives

    def advance(self) -> None:
        """One step of both worlds, unless paused or over."""
        if self.paused or self.over:
            return
        mine = self.task.key_action(frozenset(self.held))
        self.beside.step(self.beside.agent_action() if self.agent_drives else mine)
        if self.beside.over:
            self.over = True
            self.scores.append(self.beside.dream_score)
            real = f", {self.beside.real_score:.1f} in the real world" if self.beside.env is not None else ""
            say(f"dream {len(self.scores)}: score {self.beside.dream_score:.1f}{real}")

    def draw(self, screen: Any, pygame: Any) -> None:
        """Both worlds with their scores."""
        screen.fill(BACKGROUND)
        beside = self.beside
        self._panel(screen, pygame, 0, "the dream", beside.dream_frame(), beside.dream_score, beside.dream_over)
        picture = beside.real_picture()
        if picture is not None:
            seen = visible(self.task, picture)
            self._panel(screen, pygame, 1, "the real world", seen, beside.real_score, beside.real_over)
        base, left = _HEAD + _PANEL[1] + 42, 24
        for name, value, width in self.readings():
            after = write(screen, name, (left, base), 18, QUIET)
            write(screen, value, (after + 8, base), 28, ACCENT)
            left += width
        write(screen, _HELP, (24, base + 34), 17, QUIET)
        state = "finished: enter for a new dream" if self.over else "paused: p to go on" if self.paused else ""
        if state:
            self._banner(screen, pygame, state)

    def _panel(
        self, screen: Any, pygame: Any, column: int, name: str, picture: np.ndarray, score: float, over: bool
    ) -> None:
        surface = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        screen.blit(pygame.transform.smoothscale(surface, _PANEL), (column * _PANEL[0], _HEAD))
        ended = "  (ended)" if over else ""
        write(screen, f"{name}: {score:.0f}{ended}", (column * _PANEL[0] + 24, 34), 24, QUIET)

    def readings(self) -> list[tuple[str, str, int]]:
        """Name, value and room in pixels of what is shown beneath the worlds."""
        return [
            ("step", f"{self.beside.step_number}", 170),
            ("temperature", f"{self.temperature:.2f}", 260),
            ("driver", "agent" if self.agent_drives else "you", 150),
        ]

    def close(self) -> None:
        """Close the real world."""
        if self.beside.env is not None:
            with contextlib.suppress(Exception):
                self.beside.env.close()
