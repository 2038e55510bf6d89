"""CarRacing-v3: steer a car over a new random track in every episode (Ha & Schmidhuber 2018, section 3).

Action: steer in [-1, 1], gas in [0, 1], brake in [0, 1]. Reward: 1000/N for each of the track's N tiles when first
visited, -0.1 for every frame, -100 for leaving the playfield. An episode ends after a lap, when the car leaves the
playfield, or after 1000 frames, of which 50 are a second. A step is one frame, or several with the option
``action_repeat``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from gymnasium import spaces

from worldmodels.core.errors import UserError
from worldmodels.tasks.base import EnvPoolWorld, Mirror, Playing, Policy, PolicyFor, ProcessWorld, Task, World
from worldmodels.tasks.car_racing.explorers import Explorer, Perturbed, Uniform
from worldmodels.tasks.car_racing.playing import CarRacingPlaying
from worldmodels.tasks.car_racing.repeated import FAST, REPEATED, STOCK
from worldmodels.tasks.car_racing.road_follower import RoadFollower
from worldmodels.tasks.resize import resized

if TYPE_CHECKING:
    from torch import Tensor

BAR_ROWS = 12
"""Rows of the indicator bar at the bottom, cropped as in the paper's code."""
_WHOLE_TRACK = 1000.0
"""The rewards of all tiles of a track together, however many there are."""
_FRAME_COST = 0.1
_LEFT_FIELD = -100.0
"""The reward of the frame in which the car leaves the playfield, in place of the frame's others."""
_LONGEST_REPEAT = 10


class CarRacing(Task):
    """Gymnasium's CarRacing-v3, the same with a faster drawing of its pictures, or EnvPool's port of it.

    action_repeat: the frames for which every action lasts. With 2, an episode has at most 500 steps; frames, rewards
    and tracks stay the same.
    """

    name = "car-racing"
    title = "CarRacing"
    observation_shape = (96, 96, 3)
    action_size = 3
    control_size = 3
    action_space = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
    reference_backend = "gymnasium"
    goal = "finished laps"
    mirror = Mirror(actions=(-1, 1, 1), controls=(-1, 1, 1))
    rules = ("follow-road",)
    max_steps = 1000
    # The camera zooms in for a second; before that the road is too thin for M to tell where it leads.
    start_steps: tuple[int, ...] = (60, 75, 90, 105)

    def __init__(self, action_repeat: int = 1) -> None:
        if action_repeat > 1:
            self.action_repeat = action_repeat
            self.max_steps = -(-self.max_steps // action_repeat)
            self.start_steps = tuple(step // action_repeat for step in self.start_steps)
            self.facts = {"options": dict(self.options)}

    @classmethod
    def with_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """The task with the option action_repeat, a whole number from 1 to 10."""
        if others := ", ".join(f"--env.{key}" for key in options if key != "action_repeat"):
            raise UserError(f"{name} has no option {others} of its environment; it has --env.action_repeat")
        repeat = options.get("action_repeat", 1)
        if type(repeat) is not int or not 1 <= repeat <= _LONGEST_REPEAT:
            raise UserError(
                f"expected a whole number of frames from 1 to {_LONGEST_REPEAT} as action_repeat, got {repeat!r:.60}"
            )
        return cls(repeat)

    @property
    def options(self) -> Mapping[str, Any]:
        """action_repeat, unless it is 1."""
        return {"action_repeat": self.action_repeat} if self.action_repeat > 1 else {}

    @property
    def worlds(self) -> Mapping[str, World]:
        """The stock environment, drawn faster or as it is, in worker processes, and EnvPool's port.

        EnvPool cannot repeat actions.
        """
        fast = self._world(FAST, ("Box2D", "pygame", "numba"), _compile)
        stock = self._world(STOCK, ("Box2D", "pygame"))
        if self.action_repeat > 1:
            return {"fast": fast, "gymnasium": stock}
        return {"fast": fast, "envpool": EnvPoolWorld(STOCK), "gymnasium": stock}

    def _world(self, env_id: str, needs: tuple[str, ...], prepare: Callable[[], None] | None = None) -> ProcessWorld:
        if self.action_repeat == 1:
            return ProcessWorld(env_id, needs, "car", prepare=prepare)
        repeated = {"world": env_id, "action_repeat": self.action_repeat}
        return ProcessWorld(REPEATED, needs, "car", repeated, prepare)

    @property
    def playing(self) -> Playing:
        """Played with the arrow keys."""
        return CarRacingPlaying(self.action_repeat)

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Crop the indicator bar and resize 84x96 to 64x64 pixels with an antialiased bilinear filter.

        Antialiasing helps twice: thin kerbs do not flicker for V, and the two renderers, one with hard edges and one
        with smooth ones, look more alike.
        """
        return resized(observations[:, :-BAR_ROWS])

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Steer = c0, gas = (c1 + 1) / 2, brake = clip(c2, 0, 1), as in the paper's code."""
        steer, gas, brake = control[:, 0], (control[:, 1] + 1) / 2, np.clip(control[:, 2], 0, 1)
        return np.stack([steer, gas, brake], axis=1).astype(np.float32)

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """The actions themselves, (N, 3) float32."""
        return np.asarray(actions, dtype=np.float32)

    def dream_action(self, control: "Tensor") -> "Tensor":
        """The same as :meth:`env_action`, without leaving the device."""
        import torch

        steer, gas, brake = control[:, 0], (control[:, 1] + 1) / 2, control[:, 2].clamp(0, 1)
        return torch.stack([steer, gas, brake], dim=1)

    def exploration(self, seeds: Sequence[int]) -> Policy:
        """Noisy drivers: a quarter drive at random, the others follow the road at a random pace."""
        return Explorer(seeds, self.action_repeat)

    def episode_facts(
        self, returns: np.ndarray, lengths: np.ndarray, terminated: np.ndarray, last_rewards: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        """finished: whether the world ended the episode after a lap; tiles: the share of the tiles that were visited.

        A lap ends when every tile was visited. The world also ends an episode when the car leaves the playfield, which
        the last reward tells. The share (0 to 1) follows from the return, because every frame costs 0.1 and all tiles
        together pay 1000; it is exact but for rounding, and for the frames by which the last step was shorter than the
        others.
        """
        left = terminated & (last_rewards < _LEFT_FIELD / 2)
        earned = returns - np.where(left, _LEFT_FIELD, 0.0) + _FRAME_COST * (self.action_repeat * lengths - left)
        return {"finished": terminated & ~left, "tiles": np.clip(earned / _WHOLE_TRACK, 0.0, 1.0)}

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """The policy with Ornstein-Uhlenbeck noise and lapses, whose strength and frequency differ between episodes."""
        return Perturbed(policy, seeds, self.action_repeat)

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """Uniformly random actions, drawn anew at every step."""
        return Uniform(seeds)

    def rule(self, name: str) -> tuple[Task, PolicyFor]:
        """The rule follow-road: a hand-written driver who sees the pictures that agents see."""
        if name not in self.rules:
            raise UserError(f"unknown rule {name!r}; choose from {', '.join(self.rules)}")
        return self, RoadFollower


def _compile() -> None:
    from worldmodels.tasks.car_racing.env import compile_drawing

    compile_drawing()
