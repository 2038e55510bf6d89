"""The base class of viewers, which get keys by name and return scenes and pictures.

A viewer has no window of its own: ``window.py`` shows it on a screen, and a web page could show it in a browser.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from worldmodels.core.device import torch_threads
from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.seeds import episode_seeds
from worldmodels.play.scene import Panel, Scene, ScenePainter
from worldmodels.tasks import Task
from worldmodels.tasks.base import Playing, playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

ARROWS = ("left", "right", "up", "down")
"""The keys that are held; every other key acts once, when it goes down."""
_LETTERS = {"a": "left", "d": "right", "w": "up", "s": "down"}
"""Letters that mean the same as arrows."""
_LETTER_OF = {arrow: letter for letter, arrow in _LETTERS.items()}
WORLD_PANEL = (900, 630)
_LONGEST_HELP = 200
"""Characters of what keys do, about as many as the line of help has room for beside the other keys."""


class Viewer(ABC):
    """A session in which one person plays or watches one world, or its dream.

    The code that shows a viewer does the following :attr:`frames_per_second` times per second, while the viewer is
    :attr:`running`: pass on the person's keys and clicks, call :meth:`advance`, and show :meth:`picture` (or
    :meth:`scene`). At the end it calls :meth:`close`. Names of keys are "left", "right", "up", "down", "enter",
    "escape", "backspace", "space", "plus", "minus", letters and digits. Places are pixels (x, y) of the picture.
    """

    def __init__(self, task: Task, seed: int, episode_word: str, painter: ScenePainter) -> None:
        self.task, self.playing = task, playing_of(task)
        self.title, self.size = task.title, painter.size
        self.running, self.paused, self.over = True, False, False
        self.agent_acts = False
        self.message = ""
        self.scores: list[float] = []
        """The score of every finished episode."""
        self.note = ""
        """A remark of the code that shows the viewer, such as the speed that it reaches."""
        self.held: set[str] = set()
        """The arrow keys that are down."""
        self._tilted: tuple[float, float, float] | None = None
        self._word, self._painter = episode_word, painter
        self._seed, self._episode = seed, -1

    @property
    def frames_per_second(self) -> int:
        """How many times per second the viewer is to be advanced and shown."""
        return self.playing.frames_per_second

    @property
    def player(self) -> str:
        """Who acts: "agent" or "you"."""
        return "agent" if self.agent_acts else "you"

    def press(self, key: str) -> None:
        """A key goes down. A key that is held down is not pressed again until it is released."""
        key = _LETTERS.get(key, key)
        if key in ARROWS or key in self.playing.more_keys:
            self.held.add(key)
            self._take_over()
        else:
            self._command(key)

    def release(self, key: str) -> None:
        """A key goes up."""
        self.held.discard(_LETTERS.get(key, key))

    def tilt(self, steer: float, forward: float, back: float) -> None:
        """The stick of a gamepad is at ``steer``, from -1 (left) to 1, and its two triggers from 0 to 1."""
        moved = steer != 0 or forward != 0 or back != 0
        self._tilted = (steer, forward, back) if moved else None
        if moved:
            self._take_over()

    def _take_over(self) -> None:
        """The person acts, if the agent did."""
        self.agent_acts = False

    def _own_action(self) -> np.ndarray:
        """What the person does with the keys, or with a gamepad while no key is held."""
        if self._tilted is not None and not self.held:
            return self.playing.stick_action(*self._tilted)
        return self.playing.key_action(frozenset(self.held))

    def point(self, place: tuple[int, int]) -> None:
        """The mouse moves to ``place``; most viewers ignore it."""
        return

    def click(self, place: tuple[int, int]) -> None:
        """The person clicks at ``place``; most viewers ignore it."""
        return

    def lose_focus(self) -> None:
        """The person turns to another window: pause, and release all keys, since their release may not be reported."""
        self.held.clear()
        self._tilted = None
        self.paused = True

    def quit(self) -> None:
        """End the session: :attr:`running` becomes False."""
        self.running = False

    def _command(self, key: str) -> None:
        if key in ("escape", "q"):
            self.quit()
        elif key == "enter":
            self.new_episode()
        elif key == "p":
            self.paused = not self.paused
        elif key == "space":
            self._toggle_agent()

    def hand_to_agent(self) -> None:
        """The agent acts from now on, until the person takes over."""
        if not self.agent_acts:
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
        """Advance the world by one step, unless it is paused or over."""
        if not self.paused and not self.over:
            with torch_threads(1):
                self._tick()

    def scene(self) -> Scene:
        """What the viewer shows now."""
        with torch_threads(1):
            readings = tuple(self.readings().items())
            texts = readings, self.message_line(), self.help, self._banner(), self.note
            return Scene(self.title, self._panels(), *texts)

    def picture(self) -> np.ndarray:
        """The scene as a picture of :attr:`size`, (H, W, 3) uint8."""
        with torch_threads(1):
            return self._painter.draw(self.scene())

    def _banner(self) -> str | None:
        if self.over:
            return f"finished: enter for a new {self._word}"
        return "paused: p to go on" if self.paused else None

    def message_line(self) -> str:
        """What has just happened, or empty."""
        return self.message

    @property
    @abstractmethod
    def help(self) -> str:
        """What the keys do."""

    @abstractmethod
    def readings(self) -> dict[str, str]:
        """Names and values that are shown below the world, such as the score."""

    @abstractmethod
    def close(self) -> None:
        """Close the environments."""

    @abstractmethod
    def _start(self) -> None:
        """Start an episode with :attr:`seed`."""

    @abstractmethod
    def _tick(self) -> None:
        """Advance the world by one step."""

    @abstractmethod
    def _panels(self) -> tuple[Panel, ...]: ...


def agent_for(task: Task, agent: "Agent | str | None") -> "Agent":
    """``agent`` itself, or the agent with this name or path (None: the task's shipped agent).

    Raises :class:`UserError` if there is none and for an agent of another task.
    """
    from worldmodels.agent import Agent, load_agent

    loaded = agent if isinstance(agent, Agent) else load_agent(agent or task.name)
    if loaded.task.identity != task.identity:
        name = "this" if agent is loaded else agent
        raise UserError(f"{name} is an agent for {loaded.task.identity}, not for {task.identity}")
    return loaded


def check_playable(task: Task) -> None:
    """Say which actions have no key, if any; a world in which no key does anything is a :class:`UserError`."""
    playing = playing_of(task)
    if playing.board() is None and not _acting_keys(playing):
        raise UserError(
            f"{task.name} cannot be played by hand: none of the keys changes the action (its action space is "
            f"{task.action_space}); worldmodels watch {task.name} shows an agent there"
        )
    if playing.without_keys:
        say(f"{task.name}: {playing.without_keys}")


def _acting_keys(playing: Playing) -> list[str]:
    """The keys that change what is done while they are held."""
    nothing = playing.key_action(frozenset())
    keys = (*ARROWS, *playing.more_keys)
    return [key for key in keys if not np.array_equal(playing.key_action(frozenset({key})), nothing)]


def steering_help(playing: Playing) -> str:
    """Names of the keys that do something in a world, for example "arrow keys or WASD"."""
    # A key may be for the action that is done without any key, too.
    named = [key for keys, _ in playing.key_meanings for key in keys] or _acting_keys(playing)
    used = [key for key in ARROWS if key in named]
    more = _shown(playing.more_keys)
    if len(used) in (0, len(ARROWS)):
        return ", ".join(filter(None, ["arrow keys or WASD" if used or not more else "", more]))
    return f"{', '.join(used)} or {', '.join(_LETTER_OF[key] for key in used)}{f', {more}' if more else ''}"


def action_help(playing: Playing) -> str:
    """What the keys do, for example "left/a: fire; no key: nothing"; in worlds that are steered only their names."""
    if not playing.key_meanings:
        return f"{steering_help(playing)} act"
    parts = []
    for keys, meaning in playing.key_meanings:
        arrows = [f"{key}/{_LETTER_OF[key]}" for key in keys if key in ARROWS]
        others = _shown([key for key in keys if key not in ARROWS])
        parts.append(f"{' '.join(filter(None, [*arrows, others])) or 'no key'}: {meaning}")
    last = [parts.pop(), *filter(None, [playing.without_keys])]
    while parts and len("; ".join([*parts, *last])) > _LONGEST_HELP:
        parts.pop()
        last = ["...", *(text for text in last if text != "...")]
    return "; ".join([*parts, *last])


def _shown(keys: Sequence[str]) -> str:
    """Letters and digits for people: "f, 0 to 5"."""
    digits = [key for key in keys if key.isdigit()]
    numbers = [f"{digits[0]} to {digits[-1]}"] if len(digits) > 2 else digits
    return ", ".join([*(key for key in keys if not key.isdigit()), *numbers])
