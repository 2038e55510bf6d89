"""Playing and watching without a window: keys go in by name, scenes and pictures come out.

A window shows a viewer on a screen (``window.py``), a page can show the same one in a browser.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from worldmodels.core.device import torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import episode_seeds
from worldmodels.play.scene import Panel, Scene, ScenePainter
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

ARROWS = ("left", "right", "up", "down")
"""The keys that people hold; every other key does something once when it goes down."""
WORLD_PANEL = (900, 630)


class Viewer(ABC):
    """A session of one person with one world, or with its dream.

    Whoever shows it repeats, :attr:`frames_per_second` times a second and while it is :attr:`running`: tell it what the
    person did, :meth:`advance` it, show its :meth:`picture` (or :meth:`scene`). At the end, :meth:`close` it.
    Keys are called "left", "right", "up", "down", "enter", "escape", "backspace", "plus" and "minus"; letters and
    digits are called what they are. Places are pixels of the picture, (x, y).
    """

    help: str
    """What the keys do."""

    def __init__(self, task: Task, seed: int, episode_word: str, painter: ScenePainter) -> None:
        self.task, self.playing = task, playing_of(task)
        self.title, self.size = task.title, painter.size
        self.running, self.paused, self.over = True, False, False
        self.agent_acts = False
        self.message = ""
        self.scores: list[float] = []
        """Of every finished episode."""
        self.held: set[str] = set()
        """The arrow keys that are down."""
        self._word, self._painter = episode_word, painter
        self._seed, self._episode = seed, -1

    @property
    def frames_per_second(self) -> int:
        """How often the viewer is to be advanced and shown."""
        return self.playing.frames_per_second

    @property
    def player(self) -> str:
        """Who acts."""
        return "agent" if self.agent_acts else "you"

    def press(self, key: str) -> None:
        """A key goes down; while it is held down it is not pressed again."""
        if key in ARROWS:
            self.held.add(key)
        else:
            self._command(key)

    def release(self, key: str) -> None:
        """A key goes up."""
        self.held.discard(key)

    def point(self, place: tuple[int, int]) -> None:
        """The pointer moves to ``place``; most viewers do not care."""
        return

    def click(self, place: tuple[int, int]) -> None:
        """The person clicks at ``place``; most viewers do not care."""
        return

    def lose_focus(self) -> None:
        """The person turns to something else: let go of the keys, which may be released unseen, and wait."""
        self.held.clear()
        self.paused = True

    def quit(self) -> None:
        """The person has had enough."""
        self.running = False

    def _command(self, key: str) -> None:
        if key in ("escape", "q"):
            self.quit()
        elif key == "enter":
            self.new_episode()
        elif key == "p":
            self.paused = not self.paused
        elif key == "a":
            self._toggle_agent()

    def _toggle_agent(self) -> None:
        self.agent_acts = not self.agent_acts

    def new_episode(self) -> None:
        """Start the next episode."""
        self._episode += 1
        self.seed = episode_seeds("play", self._seed, 1, self._episode)[0]
        self.over, self.message = False, ""
        with torch_threads(1):
            self._start()

    def advance(self) -> None:
        """One step of the world, unless it is paused or over."""
        if not self.paused and not self.over:
            with torch_threads(1):
                self._tick()

    def scene(self) -> Scene:
        """What there is to be seen now."""
        with torch_threads(1):
            readings = tuple(self.readings().items())
            return Scene(self.title, self._panels(), readings, self.message_line(), self.help, self._banner())

    def picture(self) -> np.ndarray:
        """The scene as a picture of :attr:`size`, (H, W, 3) uint8."""
        with torch_threads(1):
            return self._painter.draw(self.scene())

    def _banner(self) -> str | None:
        if self.over:
            return f"finished: enter for a new {self._word}"
        return "paused: p to go on" if self.paused else None

    def message_line(self) -> str:
        """What has just happened, perhaps nothing."""
        return self.message

    @abstractmethod
    def readings(self) -> dict[str, str]:
        """Names and values of what people may want to know."""

    @abstractmethod
    def close(self) -> None:
        """End the world."""

    @abstractmethod
    def _start(self) -> None:
        """Start the world with :attr:`seed`."""

    @abstractmethod
    def _tick(self) -> None:
        """One step of the world."""

    @abstractmethod
    def _panels(self) -> tuple[Panel, ...]: ...


def agent_for(task: Task, agent: "Agent | str | None") -> "Agent":
    """The agent, or the one with this name or path (None: the shipped one); one for another task is refused."""
    from worldmodels.agent import Agent, load_agent

    loaded = agent if isinstance(agent, Agent) else load_agent(agent or task.name)
    if loaded.task.name != task.name:
        name = "this" if agent is loaded else agent
        raise UserError(f"{name} is an agent for {loaded.task.name}, not for {task.name}")
    return loaded
