"""The interface between a task and the rest of the package: everything that other modules may know about a world.

:class:`Task` is what collecting, training, evolving and scoring need. Playing by hand (:class:`Playing`) and probing
(:class:`TellsState`) are optional.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from gymnasium import Env, spaces
from gymnasium.vector import VectorEnv

from worldmodels.core.errors import UserError
from worldmodels.core.read_only import ReadOnly

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class EnvPoolWorld:
    """A backend: the C++ environments that EnvPool calls ``env_id``; requires: modules that must be installed."""

    env_id: str
    requires: tuple[str, ...] = ("envpool",)


@dataclass(frozen=True)
class ProcessWorld:
    """A backend: copies of ``gymnasium.make(env_id, **options)``, stepped in worker processes.

    env_id: a Gymnasium id, also as "module:Id-v0"; requires: modules that must be installed; extra: the extra of this
    package that installs them; prepare: called before the workers start, for what has to be done once and not by every
    worker; cleanup: called before the workers start and after they have ended, for simulators that leave files or
    processes behind when they are killed; check: called with the number of copies before they are made, raises
    :class:`UserError` if they cannot run on this machine.
    """

    env_id: str
    requires: tuple[str, ...] = ()
    extra: str = "all"
    options: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    cleanup: Callable[[], None] | None = None
    check: Callable[[int], None] | None = None


@dataclass(frozen=True)
class ArrayWorld:
    """A backend: ``make(num_envs)`` returns a vector environment that steps all its rows, with autoreset disabled.

    requires: modules that must be installed, apart from those that this package needs anyway.
    """

    make: Callable[[int], VectorEnv]
    requires: tuple[str, ...] = ()


ActionSpace = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
"""The action spaces that tasks may have."""

World = EnvPoolWorld | ProcessWorld | ArrayWorld


class Observations:
    """Observations of n rows of a vector environment: ``raw`` (n, ...), and frames, computed once, at first access.

    health: (n,), for recording alone, where the environment's info tells it, else None. The environment's next step may
    overwrite the arrays: copy what you keep.
    """

    def __init__(self, task: "Task", raw: np.ndarray, health: np.ndarray | None = None) -> None:
        self._task, self.raw, self.health = task, raw, health
        self._frames: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def frames(self) -> np.ndarray:
        """The frames that V sees, (n, 64, 64, 3) uint8."""
        if self._frames is None:
            self._frames = self._task.frames(self.raw)
        return self._frames

    def of(self, rows: np.ndarray) -> "Observations":
        """The observations of a subset of the rows: their indices (m,), or a mask (n,) bool."""
        subset = Observations(self._task, self.raw[rows], None if self.health is None else self.health[rows])
        subset._frames = None if self._frames is None else self._frames[rows]
        return subset


class Policy(Protocol):
    """Chooses actions for rows of a vector environment."""

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Environment actions (n, ...) for the observations of the n environments with the indices ``rows`` (n,)."""
        ...


PolicyFor = Callable[[Sequence[int]], Policy]
"""Makes a new policy for environments with the given seeds, one seed per row."""


class Board(Protocol):
    """Draws a world of numbered choices for people who play it, and says which choice is at a pixel.

    Legend: C choices. A state (S,) is one observation of the task that :meth:`Task.rule` returns.
    """

    size: tuple[int, int]
    """Width and height in pixels."""

    def draw(self, state: np.ndarray, action_mask: np.ndarray, pointed: int | None) -> "Image":
        """The state as a picture. action_mask: (C,) bool, the allowed choices; pointed: the choice to highlight."""
        ...

    def choice_at(self, place: tuple[int, int]) -> int | None:
        """The choice drawn at the pixel ``place`` (x, y), or None."""
        ...

    def objection(self, state: np.ndarray, choice: int) -> str:
        """One line that says why a choice is not allowed in this state."""
        ...


class Playing(ABC):
    """How people watch and play a world: in one Gymnasium environment, the stock environment, that renders itself.

    Legend: A numbers that encode an action for M.
    """

    gymnasium_id: str
    """Id of the stock environment."""
    frames_per_second: int = 50
    """Steps per second at which people watch and play."""
    action_names: tuple[str, ...]
    """A label for each of the A action numbers, for captions."""
    action_ranges: tuple[tuple[float, float], ...]
    """Lowest and highest value of each of the A action numbers, for drawing them."""
    visible_rows: tuple[float, float] = (0.0, 1.0)
    """First and last row of the rendered picture that frames keep, as fractions of its height."""
    more_keys: tuple[str, ...] = ()
    """Letters and digits that count as held keys, too."""
    key_meanings: tuple[tuple[tuple[str, ...], str], ...] = ()
    """Groups of keys and what they do while they are held, for the help; a group of no keys: what is done without any.
    Empty: the help only names the keys, for worlds that are steered."""
    without_keys: str = ""
    """Which actions no key makes, in a few words for the help; empty if keys make all of them."""
    episode_word: str = "episode"
    """What an episode is called in messages to people, for example "track" or "game"."""

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """Options of ``gymnasium.make`` with which the stock environment returns the task's observations."""
        return {}

    def make(self, **options: Any) -> Env[Any, Any]:
        """The environment in which people watch and play, with these options of ``gymnasium.make``.

        It must behave like the stock environment, but it may draw its pictures in another way.
        """
        import gymnasium

        return gymnasium.make(self.gymnasium_id, **{**self.gymnasium_options, **options})

    @abstractmethod
    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """The environment action for the keys that are held: "left", "right", "up", "down" and :attr:`more_keys`."""

    def stick_action(self, steer: float, forward: float, back: float) -> np.ndarray:
        """The environment action for a gamepad: the left stick from -1 (left) to 1, and two triggers from 0 to 1.

        By default, whatever is moved further than half its way counts as the arrow key of that direction.
        """
        moved = {"left": -steer, "right": steer, "up": forward, "down": back}
        return self.key_action(frozenset(key for key, way in moved.items() if way > 0.5))

    def board(self) -> Board | None:
        """The board of a turn-based world, played against the task's first rule; None: people hold arrow keys."""
        return None

    def board_picture(self, env: VectorEnv, action: Any | None) -> np.ndarray | None:
        """The board of the first of N worlds, (H, W, 3) uint8, with the choice ``action``; None without a board."""
        return None

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """Named values of the stock environment to show to a person who plays, in addition to score and time."""
        return {}


@runtime_checkable
class TellsState(Protocol):
    """A task that reports the true state of its worlds, so that V's latents can be probed for it."""

    def state(self, env: VectorEnv) -> Mapping[str, np.ndarray]:
        """Named variables of the current states of N worlds, each (N,) or (N, K).

        float64: a quantity; bool: a property that holds or does not; int64: a category, always (N,).
        """
        ...


class Mirror(NamedTuple):
    """What a mirror does to actions in a world in which left and right are alike; frames are turned round in it.

    actions: for each of the A numbers that encode an action for M, -1 if its sign changes in the mirror, and 1 if the
    number stays the same; controls: likewise for each of the C controls.
    """

    actions: tuple[int, ...]
    controls: tuple[int, ...]


class Task(ReadOnly, ABC):
    """A world and everything that agents need to act in it.

    Legend: N environments, A numbers that encode an action for M, C controls (outputs of the controller).
    """

    name: str
    """The name in commands and files."""
    title: str
    """The name shown to people."""
    observation_shape: tuple[int, ...]
    """Shape of one raw observation, which is uint8."""
    action_size: int
    """A, how many numbers encode one action for M."""
    control_size: int
    """C, how many outputs the controller has."""
    max_steps: int
    """Longest episode, in environment steps."""
    action_space: ActionSpace
    """The action space of one environment."""
    action_repeat: int = 1
    """Frames of the world for which every action lasts, which together are one environment step."""
    inputs: tuple[str, ...] = ("z", "h")
    """Which of z, h and c the controller sees."""
    predicts_reward: bool = True
    """Whether M has a reward head."""
    reward_scale: float = 1.0
    """M learns rewards divided by this number; for large rewards it should be their typical size."""
    predicts_end: bool = True
    """Whether M has an end head."""
    shows_end: bool = True
    """Whether the world still shows a picture after the step with which it ends an episode. If not, that last frame is
    recorded like the others, but V does not learn it and M does not learn to predict it."""
    full_health: float | None = None
    """The health with which episodes begin, for worlds whose info holds it as "health". It is then recorded, and M can
    learn when it falls. Agents never see it."""
    alive_reward: float | None = None
    """The reward of every step in a dream; None means the reward that M predicts."""
    remembers_controls: bool = False
    """Whether M gets :meth:`dream_action` of the controls when an agent acts, and not only the action that they become;
    for tasks in which controls say more than actions."""
    start_steps: tuple[int, ...] = (0,)
    """Steps of recorded episodes at which dreams start, with the state that M has after the steps before."""
    clock_steps: int = 0
    """Steps that count as 1 on M's clock, for a world that changes with time; 0 means that its M has no clock, unless
    the settings say otherwise."""
    num_envs: int = 50
    """Environments that run together by default."""
    max_envs: int = 256
    """The most environments that run together for many controllers; more would only cost memory."""
    reference_backend: str
    """The backend on which scores are measured."""
    masked: bool = False
    """Whether :meth:`action_mask` can forbid controls; M then learns to predict the mask from z."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """What was found out about the world when the task was made, as JSON; runs and agents save it to rebuild it."""
    goal: str = ""
    """What episodes that have finished are called, such as "finished laps"; empty for a world that has no goal."""
    mirror: Mirror | None = None
    """For a world in which left and right are alike, so that whatever happens in it could happen in a mirror, too."""
    rules: tuple[str, ...] = ()
    """Names of the hand-written policies of :meth:`rule`, which serve as baselines."""

    @property
    @abstractmethod
    def worlds(self) -> Mapping[str, World]:
        """The backends that can build this world, by name, the fastest first."""

    @classmethod
    def with_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """The task with options of its world; ``name`` is for messages.

        Raises :class:`UserError` for an option that the task does not have, and for a value that it cannot have.
        """
        if options:
            given = ", ".join(f"--env.{key}" for key in options)
            raise UserError(f"{name} has no options of its environment ({given}); the tasks gym:ID have")
        return cls()

    @property
    def options(self) -> Mapping[str, Any]:
        """The options with which the environment is made, as JSON, apart from those that every task of the name has."""
        return {}

    @property
    def identity(self) -> str:
        """The name and the options: tasks with the same identity are the same world."""
        return f"{self.name} {json.dumps(dict(self.options), sort_keys=True)}" if self.options else self.name

    @property
    def presets(self) -> Mapping[str, Any] | None:
        """The tables of a ``presets.toml``, for tasks whose presets follow from the world; None: they have a file."""
        return None

    @property
    def backends(self) -> tuple[str, ...]:
        """Names of the backends, the fastest first."""
        return tuple(self.worlds)

    @property
    def playing(self) -> Playing | None:
        """How people watch and play this world; None where they cannot."""
        return None

    @abstractmethod
    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Turn raw observations (N, *observation_shape) uint8 into frames (N, 64, 64, 3) uint8."""

    @abstractmethod
    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Turn controls (N, C) into actions of N environments.

        Controls are in [-1, 1] (after tanh), or -inf where :meth:`action_mask` forbids them.
        """

    @abstractmethod
    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """Turn environment actions (N, ...) into the numbers (N, A) float32 that encode them for M."""

    def dream_action(self, control: "Tensor") -> "Tensor":
        """:meth:`memory_action` of :meth:`env_action`: numbers (N, A) float32 for controls (N, C).

        A task may override it with operations that stay on the GPU.
        """
        import torch

        return torch.from_numpy(self.memory_action(self.env_action(control.cpu().numpy()))).to(control.device)

    def action_mask(self, frames: np.ndarray) -> np.ndarray | None:
        """The allowed controls (N, C) bool, read off frames (N, 64, 64, 3); None if all are always allowed."""
        return None

    @abstractmethod
    def exploration(self, seeds: Sequence[int]) -> Policy:
        """The policy that collects the first episodes, with one random stream per seed."""

    @abstractmethod
    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """``policy`` with noise on its actions, so that the episodes it collects are more varied."""

    @abstractmethod
    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """The random policy, a baseline for scores."""

    def episode_facts(
        self, returns: np.ndarray, lengths: np.ndarray, terminated: np.ndarray, last_rewards: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        """What else is known of E episodes that are over, by name, each (E,): bool, or numbers that are finite.

        It follows from the rewards and the end alone, so that every backend can tell it. returns: (E,) float64;
        lengths: (E,) int64, in steps; terminated: (E,) bool, whether the world ended the episode, and no limit;
        last_rewards: (E,) float64, the reward of its last step. A task with a :attr:`goal` has "finished", (E,) bool,
        among them: whether the episode has reached it.
        """
        return {}

    def rule(self, name: str) -> "tuple[Task, PolicyFor]":
        """The rule called ``name``, as a policy, and the task whose observations it needs.

        Raises :class:`UserError` for a name that is not one of :attr:`rules`.
        """
        raise UserError(f"{self.name} has no rule {name!r}")


def playing_of(task: Task) -> Playing:
    """The task's :attr:`Task.playing`. Raises :class:`UserError` for a task that people cannot watch or play."""
    if task.playing is None:
        raise UserError(f"{task.name} cannot be watched or played, because its task has no Task.playing")
    return task.playing


def check_backend(task: Task, backend: str) -> None:
    """Raise :class:`UserError` for a backend that the task does not have."""
    if backend not in task.backends:
        raise UserError(f"unknown backend {backend!r} for {task.name}; choose from {', '.join(task.backends)}")
