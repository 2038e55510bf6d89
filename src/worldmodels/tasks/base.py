"""The seam between a world and everything else: all that the rest may know of a world."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from gymnasium import Env, spaces
from gymnasium.vector import VectorEnv

from worldmodels.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class ExplorationPolicy(Protocol):
    """Chooses environment actions without a model; used to collect the first episodes."""

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Environment actions for the observations (n, ...) of the environments ``rows`` (n,)."""
        ...


class Board(Protocol):
    """A world of numbered choices as people see and choose them in a window; drawn with pygame.

    Legend: C choices. A state (S,) is what the world's rules see, with which the board is drawn.
    """

    size: tuple[int, int]
    """Width and height in pixels."""

    def draw(self, screen: Any, state: np.ndarray, allowed: np.ndarray, pointed: int | None) -> None:
        """Draw the state with the choices ``allowed`` (C,) bool; ``pointed`` is the one a person thinks of."""
        ...

    def choice_at(self, place: tuple[int, int]) -> int | None:
        """The choice drawn at ``place`` (x, y)."""
        ...

    def objection(self, state: np.ndarray, choice: int) -> str:
        """Why a choice that is not allowed is not, in one line."""
        ...


class Task(ABC):
    """A world and how to meet it. Legend: N environments, A action numbers that M sees, C controls."""

    name: str
    """The name in commands and files."""
    title: str
    """The name for people."""
    gymnasium_id: str
    """The stock Gymnasium environment, which draws itself for people."""
    observation_shape: tuple[int, ...]
    """Shape of one raw observation, uint8."""
    action_size: int
    """Numbers that M sees of one action."""
    control_size: int
    """Outputs of the controller."""
    max_steps: int
    """Longest episode, in environment steps."""
    solved: float
    """Mean return over 100 episodes at which the world counts as solved."""
    features: tuple[str, ...] = ("z", "h")
    """What the controller sees of z, h and c."""
    predicts_reward: bool = True
    """Whether M has a reward head."""
    reward_scale: float = 1.0
    """The unit in which M learns rewards; where they are large, about their size."""
    predicts_end: bool = True
    """Whether M has an end head."""
    alive_reward: float | None = None
    """What every step is worth in a dream; None means what M predicts."""
    dream_begins: tuple[int, ...] = (0,)
    """Steps of recorded episodes at which dreams may begin, M having followed the episode so far."""
    action_space: spaces.Box | spaces.Discrete
    """What one environment takes."""
    lockstep: int = 50
    """Environments that run together when nothing else is said."""
    at_once: int = 256
    """Most environments that run together when many controllers are measured; more would only take memory."""
    backends: tuple[str, ...]
    """Backends that can build this world, fastest first."""
    reference_backend: str
    """The backend on which scores count."""
    action_names: tuple[str, ...]
    """What each of the A action numbers does, for captions."""
    action_ranges: tuple[tuple[float, float], ...]
    """Lowest and highest value of each of the A action numbers, for pictures."""
    masked: bool = False
    """Whether :meth:`allowed` forbids controls; M then learns to tell from z which."""
    rules: tuple[str, ...] = ()
    """Names of policies that need no learning, for comparison."""
    seen_rows: tuple[float, float] = (0.0, 1.0)
    """The part of the picture's rows that frames keep, as shares of its height."""
    frames_per_second: int = 50
    """Speed at which people watch and play."""

    def make(self, num_envs: int, backend: str) -> VectorEnv:
        """A vector environment of ``num_envs`` copies. Rows that have ended stay frozen until the next reset."""
        if num_envs < 1:
            raise UserError(f"expected at least 1 environment, got {num_envs}")
        if backend not in self.backends:
            raise UserError(f"unknown backend {backend!r} for {self.name}; choose from {', '.join(self.backends)}")
        return self._make(num_envs, backend)

    @abstractmethod
    def _make(self, num_envs: int, backend: str) -> VectorEnv: ...

    @abstractmethod
    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Raw observations (N, *observation_shape) uint8 as frames (N, 64, 64, 3) uint8."""

    @abstractmethod
    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Controls (N, C) in [-1, 1] (after tanh) as the environment's actions."""

    def allowed(self, frames: np.ndarray) -> np.ndarray | None:
        """Controls that may be chosen, (N, C) bool, read off frames (N, 64, 64, 3); None where all always may."""
        return None

    def rule(self, name: str) -> "tuple[Task, Callable[[Sequence[int]], ExplorationPolicy]]":
        """The policy called ``name`` of :attr:`rules`, and the task in which it plays."""
        raise UserError(f"{self.name} has no rule {name!r}")

    @abstractmethod
    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """Environment actions as the (N, A) float32 numbers that M sees."""

    def dream_action(self, control: "Tensor") -> "Tensor":
        """Controls (N, C) in [-1, 1] as the (N, A) numbers that M sees; a task may do it without leaving a GPU."""
        import torch

        return torch.from_numpy(self.memory_action(self.env_action(control.cpu().numpy()))).to(control.device)

    @abstractmethod
    def exploration(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """A policy for collecting the first episodes, one random stream per environment."""

    @abstractmethod
    def noisy(self, policy: ExplorationPolicy, seeds: Sequence[int]) -> ExplorationPolicy:
        """``policy`` with noise on its actions, for collecting the episodes of later rounds."""

    @abstractmethod
    def random_policy(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """The random policy that scores are compared with."""

    @abstractmethod
    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """One environment action from the names of the keys a person holds (left, right, up, down)."""

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """Options of ``gymnasium.make`` with which the stock environment gives this task's observations."""
        return {}

    def board(self) -> Board | None:
        """What people choose on in their own time, beside the first of the :attr:`rules`; None where they hold keys."""
        return None

    def state(self, env: VectorEnv) -> Mapping[str, np.ndarray]:
        """Named variables of the N worlds as they stand, (N,) or (N, K), for probes of what V sees of them.

        float64: a quantity; bool: something that is so or not; int64: one of several kinds. A world that does not tell
        is a :class:`UserError`.
        """
        raise UserError(f"{self.name} does not tell its state, which a probe needs; choose a world that does")

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """What a person who plays in the stock environment may want to read beside score and time."""
        return {}
