"""The seam between a world and everything else: all that the rest may know of a world.

:class:`Task` is what collecting, training, evolving and scoring need. Playing by hand (:class:`Playing`) and probing
(:class:`TellsState`) are optional parts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import Env, spaces
from gymnasium.vector import VectorEnv

from worldmodels.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class EnvPoolWorld:
    """A backend: EnvPool's C++ environments called ``env_id``."""

    env_id: str


@dataclass(frozen=True)
class ProcessWorld:
    """A backend: ``gymnasium.make(env_id, **options)``, copies of which are stepped in worker processes.

    env_id: also "module:Id-v0"; requires: modules that it needs, extra: the extra of this package that brings them;
    cleanup: called before the start and after the workers have ended, where killed simulators leave things behind.
    """

    env_id: str
    requires: tuple[str, ...] = ()
    extra: str = "all"
    options: Mapping[str, Any] = field(default_factory=dict)
    cleanup: Callable[[], None] | None = None


@dataclass(frozen=True)
class ArrayWorld:
    """A backend: ``make(num_envs)`` gives a vector environment that steps its rows itself, with autoreset disabled."""

    make: Callable[[int], VectorEnv]


World = EnvPoolWorld | ProcessWorld | ArrayWorld


class Observations:
    """What n rows of a vector environment observe: ``raw`` (n, ...), and as frames, made once, when asked for.

    ``raw`` may be written over by the environment's next step: copy what is kept.
    """

    def __init__(self, task: "Task", raw: np.ndarray) -> None:
        self._task, self.raw = task, raw
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
        """Those of some rows: their numbers (m,), or a mask (n,) bool."""
        some = Observations(self._task, self.raw[rows])
        some._frames = None if self._frames is None else self._frames[rows]
        return some


class Policy(Protocol):
    """Acts for some rows of a vector environment."""

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Environment actions (n, ...) for what the n environments ``rows`` (n,) observe."""
        ...


PolicyFor = Callable[[Sequence[int]], Policy]
"""Makes a fresh policy for environments with these seeds, one per row."""


class Board(Protocol):
    """A world of numbered choices as people see and choose them.

    Legend: C choices. A state (S,) is what the world's rules see, with which the board is drawn.
    """

    size: tuple[int, int]
    """Width and height in pixels."""

    def draw(self, state: np.ndarray, action_mask: np.ndarray, pointed: int | None) -> "Image":
        """The state as a picture; ``action_mask`` (C,) bool: choices that may be made; ``pointed``: one thought of."""
        ...

    def choice_at(self, place: tuple[int, int]) -> int | None:
        """The choice drawn at ``place`` (x, y)."""
        ...

    def objection(self, state: np.ndarray, choice: int) -> str:
        """Why a choice may not be made, in one line."""
        ...


class Playing(ABC):
    """How people watch and play a world: in one stock Gymnasium environment, which draws itself.

    Legend: A numbers that M sees of an action.
    """

    gymnasium_id: str
    """The stock environment."""
    frames_per_second: int = 50
    """Speed at which people watch and play."""
    action_names: tuple[str, ...]
    """What each of the A action numbers does, for captions."""
    action_ranges: tuple[tuple[float, float], ...]
    """Lowest and highest value of each of the A action numbers, for pictures."""
    visible_rows: tuple[float, float] = (0.0, 1.0)
    """The part of the picture's rows that frames keep, as shares of its height."""
    episode_word: str = "episode"
    """What people call an episode: "track", "game"."""

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """Options of ``gymnasium.make`` with which the stock environment gives the task's observations."""
        return {}

    @abstractmethod
    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """One environment action from the names of the keys a person holds (left, right, up, down)."""

    def board(self) -> Board | None:
        """What people choose on in their own time, beside the first of the task's rules; None where they hold keys."""
        return None

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """What a person who plays in the stock environment may want to read beside score and time."""
        return {}


@runtime_checkable
class TellsState(Protocol):
    """A task whose worlds tell their state, for probes of what V sees of it."""

    def state(self, env: VectorEnv) -> Mapping[str, np.ndarray]:
        """Named variables of the N worlds as they stand, (N,) or (N, K).

        float64: a quantity; bool: something that is so or not; int64: one of several kinds.
        """
        ...


class Task(ABC):
    """A world and how to meet it. Legend: N environments, A action numbers that M sees, C controls."""

    name: str
    """The name in commands and files."""
    title: str
    """The name for people."""
    observation_shape: tuple[int, ...]
    """Shape of one raw observation, uint8."""
    action_size: int
    """Numbers that M sees of one action."""
    control_size: int
    """Outputs of the controller."""
    max_steps: int
    """Longest episode, in environment steps."""
    action_space: spaces.Box | spaces.Discrete
    """What one environment takes."""
    inputs: tuple[str, ...] = ("z", "h")
    """What the controller sees of z, h and c."""
    predicts_reward: bool = True
    """Whether M has a reward head."""
    reward_scale: float = 1.0
    """The unit in which M learns rewards; where they are large, about their size."""
    predicts_end: bool = True
    """Whether M has an end head."""
    alive_reward: float | None = None
    """What every step is worth in a dream; None means what M predicts."""
    start_steps: tuple[int, ...] = (0,)
    """Steps of recorded episodes at which dreams may start, M having followed the episode so far."""
    num_envs: int = 50
    """Environments that run together when nothing else is said."""
    max_envs: int = 256
    """Most environments that run together when many controllers are measured; more would only take memory."""
    reference_backend: str
    """The backend on which scores count."""
    masked: bool = False
    """Whether :meth:`action_mask` forbids controls; M then learns to tell from z which."""
    rules: tuple[str, ...] = ()
    """Names of policies that need no learning, for comparison."""

    @property
    @abstractmethod
    def worlds(self) -> Mapping[str, World]:
        """The backends that can build this world, by name, the fastest first."""

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
        """Raw observations (N, *observation_shape) uint8 as frames (N, 64, 64, 3) uint8."""

    @abstractmethod
    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Controls (N, C) in [-1, 1] (after tanh) as the environment's actions."""

    @abstractmethod
    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """Environment actions as the (N, A) float32 numbers that M sees."""

    def dream_action(self, control: "Tensor") -> "Tensor":
        """Controls (N, C) in [-1, 1] as the (N, A) numbers that M sees; a task may do it without leaving a GPU."""
        import torch

        return torch.from_numpy(self.memory_action(self.env_action(control.cpu().numpy()))).to(control.device)

    def action_mask(self, frames: np.ndarray) -> np.ndarray | None:
        """Controls that may be chosen, (N, C) bool, read off frames (N, 64, 64, 3); None where all always may."""
        return None

    @abstractmethod
    def exploration(self, seeds: Sequence[int]) -> Policy:
        """A policy for collecting the first episodes, one random stream per environment."""

    @abstractmethod
    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """``policy`` with noise on its actions, for collecting the episodes of later rounds."""

    @abstractmethod
    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """The random policy that scores are compared with."""

    def rule(self, name: str) -> "tuple[Task, PolicyFor]":
        """The policy called ``name`` of :attr:`rules`, and the task in which it plays."""
        raise UserError(f"{self.name} has no rule {name!r}")


def playing_of(task: Task) -> Playing:
    """How people watch and play a world; :class:`UserError` for one that they cannot."""
    if task.playing is None:
        raise UserError(f"{task.name} cannot be watched or played: its task does not say how; see Task.playing")
    return task.playing


def check_backend(task: Task, backend: str) -> None:
    """Refuse a backend that a task does not have."""
    if backend not in task.backends:
        raise UserError(f"unknown backend {backend!r} for {task.name}; choose from {', '.join(task.backends)}")
