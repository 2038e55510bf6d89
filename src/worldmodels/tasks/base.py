"""The seam between a world and everything else: all that the rest may know of a world."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from gymnasium.vector import VectorEnv

from worldmodels.errors import UserError


class ExplorationPolicy(Protocol):
    """Chooses environment actions without a model; used to collect the first episodes."""

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Environment actions for the observations (n, ...) of the environments ``rows`` (n,)."""
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
    solved: float
    """Mean return over 100 episodes at which the world counts as solved."""
    features: tuple[str, ...] = ("z", "h")
    """What the controller sees of z, h and c."""
    predicts_reward: bool = True
    """Whether M has a reward head."""
    predicts_end: bool = True
    """Whether M has an end head."""
    backends: tuple[str, ...]
    """Backends that can build this world, fastest first."""
    reference_backend: str
    """The backend on which scores count."""
    action_names: tuple[str, ...]
    """What each of the A action numbers does, for captions."""
    seen_rows: float = 1.0
    """Share of the picture's rows, from the top, that frames keep."""
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

    @abstractmethod
    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """Environment actions as the (N, A) float32 numbers that M sees."""

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
