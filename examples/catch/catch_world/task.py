"""The game as a task: everything that worldmodels needs to know of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium import spaces

from worldmodels.tasks.base import Observations, Playing, Policy, ProcessWorld, Task, World

ENVIRONMENT = "catch_world.game:catch/Catch-v0"
"""The id for ``gymnasium.make``; before the colon stands the module that registers it."""


class Catch(Task):
    """Catch 10 falling balls with a paddle."""

    name = "catch"
    title = "Catch"
    observation_shape = (64, 64, 3)
    action_space = spaces.Discrete(3)
    action_size = 1  # numbers that encode an action for M
    control_size = 1  # outputs of C
    max_steps = 400
    predicts_end = False  # every episode has the same length, so that M need not predict its end
    reference_backend = "gymnasium"

    @property
    def worlds(self) -> Mapping[str, World]:
        """Copies of the game, stepped in worker processes."""
        return {"gymnasium": ProcessWorld(ENVIRONMENT)}

    @property
    def playing(self) -> Playing:
        """Watched and played with the arrow keys. (Without this property, the world can still be trained.)"""
        return CatchPlaying()

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """The observations, which have the size of frames already."""
        return observations

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Right for an output of C above 1/3, left below -1/3, else stay."""
        return np.where(control[:, 0] > 1 / 3, 1, np.where(control[:, 0] < -1 / 3, 2, 0)).astype(np.int64)

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """-1 for left, 0 for staying, 1 for right."""
        numbers: np.ndarray = np.array([0.0, 1.0, -1.0], np.float32)[np.asarray(actions)]
        return numbers[:, None]

    def exploration(self, seeds: Sequence[int]) -> Policy:
        """Random moves, each held for up to 20 steps, so that the paddle reaches every place."""
        return HeldMoves(seeds, 20)

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """The policy, with a random move in one of ten steps."""
        return Mixed(policy, seeds)

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """A random move at every step."""
        return HeldMoves(seeds, 1)


class CatchPlaying(Playing):
    """How people watch and play."""

    gymnasium_id = ENVIRONMENT
    frames_per_second = 30
    action_names = ("left, right",)
    action_ranges = ((-1.0, 1.0),)

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """The move of the arrow key that is held."""
        return np.array(1 if "right" in held else 2 if "left" in held else 0, np.int64)


class HeldMoves:
    """Random moves, each held for 1 to ``longest`` steps. Every environment has a random stream of its own."""

    def __init__(self, seeds: Sequence[int], longest: int) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._longest = longest
        self._moves, self._left = np.zeros(len(seeds), np.int64), np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Moves for the environments ``rows``."""
        for row in rows[self._left[rows] == 0].tolist():
            self._moves[row] = self._streams[row].integers(3)
            self._left[row] = self._streams[row].integers(1, self._longest + 1)
        self._left[rows] -= 1
        return np.array(self._moves[rows])


class Mixed:
    """A policy whose moves are replaced by random ones in one of ten steps."""

    def __init__(self, policy: Policy, seeds: Sequence[int]) -> None:
        self._policy, self._streams = policy, [np.random.default_rng([seed, 1]) for seed in seeds]

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Moves for the environments ``rows``."""
        moves = np.array(self._policy.act(observations, rows))
        for index, row in enumerate(rows.tolist()):
            if self._streams[row].random() < 0.1:
                moves[index] = self._streams[row].integers(3)
        return moves
