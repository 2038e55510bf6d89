"""Play a world yourself in a window, watch the agent take over, and keep the episodes as data.

The game loop takes its events from pygame and draws to pygame's window, so that it also runs without a screen
(SDL_VIDEODRIVER=dummy), where tests press the keys.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worldmodels import interrupt
from worldmodels.errors import UserError
from worldmodels.ink import ACCENT, BACKGROUND, QUIET, TEXT, window_font, write
from worldmodels.progress import say
from worldmodels.report.picture import stock_env, visible
from worldmodels.seeds import episode_seeds
from worldmodels.storage.episodes import Episode, EpisodeStore
from worldmodels.tasks import Task

if TYPE_CHECKING:
    from worldmodels.agent import AgentPolicy

_WORLD = (900, 630)
_FOOT = 92
_HELP = "arrow keys drive    a agent    p pause    enter new track    esc quit"
_KEYS = ("left", "right", "up", "down")


def play(
    task: Task,
    seed: int,
    save: Path | None = None,
    agent: str | None = None,
    tick: Callable[["Game"], None] | None = None,
) -> list[float]:
    """Open the window and play until it is closed; returns the score of every finished episode.

    seed: of the first track; save: directory in which finished episodes are kept as an episode store; agent: who drives
    on the key "a" (None: the shipped agent); tick: called before every frame (tests press keys there).
    Raises :class:`UserError` when pygame or a screen is missing.
    """
    if save is not None and save.exists() and not save.is_dir():
        raise UserError(f"{save} is a file; --save expects a directory")
    board = task.board()
    if board is not None:
        from worldmodels.play_choices import ChoiceGame, window_size

        return play_game(task, lambda: ChoiceGame(task, board, seed, save, agent), window_size(board), tick)
    return play_game(task, lambda: Game(task, seed, save, agent), (_WORLD[0], _WORLD[1] + _FOOT), tick)


def play_game(
    task: Task, make: "Callable[[], Game]", size: tuple[int, int], tick: Callable[["Game"], None] | None
) -> list[float]:
    """Show the game that ``make`` makes in a window of ``size`` until it is closed; returns its scores."""
    pygame = _pygame()
    try:
        pygame.display.init()
        pygame.font.init()
        screen = pygame.display.set_mode(size)
    except pygame.error as error:
        raise UserError(f"no window can be opened ({error}); play on a machine with a screen") from None
    pygame.display.set_caption(f"worldmodels: {task.title}")
    try:
        with contextlib.closing(make()) as game:
            clock = pygame.time.Clock()
            while game.running:
                interrupt.check()
                if tick is not None:
                    tick(game)
                game.handle(pygame.event.get(), pygame)
                game.advance()
                game.draw(screen, pygame)
                pygame.display.flip()
                if tick is None:
                    clock.tick(game.frames_per_second)
            return game.scores
    finally:
        window_font.cache_clear()
        pygame.quit()


class Game:
    """One person, one world: what the keys do, the score, and the recording of the episode."""

    def __init__(self, task: Task, seed: int, save: Path | None, agent: str | None) -> None:
        self.task, self.running, self.paused = task, True, False
        self.scores: list[float] = []
        self._env = stock_env(task)
        self._seed, self._track = seed, -1
        self._store = EpisodeStore(save) if save is not None else None
        self._agent_name = agent
        self._policy: AgentPolicy | None = None
        self.agent_drives = False
        self.held: set[str] = set()
        self.new_track()

    @property
    def frames_per_second(self) -> int:
        """How often the window is drawn, and the world advanced, while nobody hurries it."""
        return self.task.frames_per_second

    def new_track(self) -> None:
        """Start the next episode."""
        self._track += 1
        self.seed = episode_seeds("play", self._seed, 1, self._track)[0]
        self.observation, _ = self._env.reset(seed=self.seed)
        self.score, self.step, self.over, self.note = 0.0, 0, False, ""
        self._frames = [self._frame()]
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []
        if self._policy is not None:
            self._policy.reset()

    def _frame(self) -> np.ndarray:
        frame: np.ndarray = self.task.frames(self.observation[None])[0]
        return frame

    def handle(self, events: list[Any], pygame: Any) -> None:
        """Act on key presses and the closing of the window."""
        names = {getattr(pygame, f"K_{name.upper()}"): name for name in _KEYS}
        for event in events:
            if event.type == pygame.QUIT:
                self.running = False
            elif event.type == pygame.WINDOWFOCUSLOST:
                # A key that is released over another window is never reported; do not drive on with it.
                self.held.clear()
                self.paused = True
            elif event.type == pygame.KEYUP and event.key in names:
                self.held.discard(names[event.key])
            elif event.type == pygame.KEYDOWN and event.key in names:
                self.held.add(names[event.key])
            elif event.type == pygame.KEYDOWN:
                self._command(event.key, pygame)

    def _command(self, key: int, pygame: Any) -> None:
        if key in (pygame.K_ESCAPE, pygame.K_q):
            self.running = False
        elif key in (pygame.K_RETURN, pygame.K_KP_ENTER):
            self.new_track()
        elif key == pygame.K_p:
            self.paused = not self.paused
        elif key == pygame.K_a:
            self._toggle_agent()

    def _toggle_agent(self) -> None:
        if self._policy is None:
            try:
                self._policy = self._load_policy()
            except UserError as error:
                self.note = str(error)
                say(self.note)
                return
        self.agent_drives = not self.agent_drives

    def _load_policy(self) -> "AgentPolicy":
        import torch

        from worldmodels.agent import load_agent

        agent = load_agent(self._agent_name or self.task.name)
        if agent.task.name != self.task.name:
            raise UserError(f"{self._agent_name} is an agent for {agent.task.name}, not for {self.task.name}")
        # One frame at a time gains nothing from more threads, and stutters where the cores are busy.
        torch.set_num_threads(1)
        return agent.policy(1)

    def advance(self) -> None:
        """One step of the world, unless it is paused or over."""
        if self.paused or self.over:
            return
        action = self.task.key_action(frozenset(self.held))
        if self._policy is not None:
            # The agent watches even when a person drives, so that it knows the track when it takes over.
            chosen = self._policy.act(self.observation[None])[0]
            action = chosen if self.agent_drives else action
        self._step(action)

    def _step(self, action: Any) -> None:
        self.observation, reward, terminated, truncated, _ = self._env.step(action)
        self.score += float(reward)
        self.step += 1
        self._actions.append(self.task.memory_action(np.asarray(action)[None])[0])
        self._rewards.append(float(reward))
        self._frames.append(self._frame())
        if terminated or truncated:
            self._finish(bool(terminated))

    def _finish(self, terminated: bool) -> None:
        self.over = True
        self.scores.append(self.score)
        say(f"episode {len(self.scores)}: score {self.score:.1f} in {self.step} steps")
        if self._store is None:
            return
        episode = Episode(
            np.stack(self._frames),
            np.stack(self._actions).astype(np.float32),
            np.array(self._rewards, dtype=np.float32),
            terminated,
            self.seed,
            "gymnasium",
        )
        self._store.write(_next_index(self._store.directory), [episode])
        self.note = f"saved to {self._store.directory}"

    def draw(self, screen: Any, pygame: Any) -> None:
        """The part of the world that agents see too, and beneath it score, time, speed and who drives."""
        picture = visible(self.task, np.asarray(self._env.render()))
        world = pygame.surfarray.make_surface(picture.swapaxes(0, 1))
        screen.fill(BACKGROUND)
        screen.blit(pygame.transform.smoothscale(world, _WORLD), (0, 0))
        base, left = _WORLD[1] + 42, 24
        for name, value, width in self.readings():
            after = write(screen, name, (left, base), 18, QUIET)
            write(screen, value, (after + 8, base), 28, TEXT)
            left += width
        write(screen, self.note or _HELP, (24, base + 34), 17, QUIET)
        state = "finished: enter for a new track" if self.over else "paused: p to go on" if self.paused else ""
        if state:
            self._banner(screen, pygame, state)

    def readings(self) -> list[tuple[str, str, int]]:
        """Name, value and room in pixels of what is shown beneath the world."""
        rate = self.task.frames_per_second
        time = f"{self.step / rate:.1f} / {self.task.max_steps / rate:.0f} s"
        shown = [("score", f"{self.score:.0f}", 160), ("step", f"{self.step}", 150), ("time", time, 230)]
        shown += [(name, f"{value:.0f}", 150) for name, value in self.task.readings(self._env).items()]
        return [*shown, ("driver", "agent" if self.agent_drives else "you", 150)]

    def _banner(self, screen: Any, pygame: Any, text: str) -> None:
        width, middle = screen.get_width(), screen.get_height() // 3
        band = pygame.Surface((width, 72), pygame.SRCALPHA)
        band.fill((20, 23, 28, 215))
        screen.blit(band, (0, middle - 36))
        image = window_font(34).render(text, True, ACCENT)
        screen.blit(image, image.get_rect(center=(width // 2, middle)))

    def close(self) -> None:
        """Close the world."""
        self._env.close()


def _next_index(directory: Path) -> int:
    taken = [int(match[1]) for path in directory.glob("flush-*.zarr") if (match := re.match(r"flush-(\d+)", path.name))]
    return max(taken, default=-1) + 1


def _pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError:
        raise UserError('playing needs pygame: pip install "worldmodels[play]"') from None
    screenless = not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and screenless and "SDL_VIDEODRIVER" not in os.environ:
        raise UserError("no screen: DISPLAY is not set; play on a machine with a screen")
    return pygame
