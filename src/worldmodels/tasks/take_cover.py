"""Doom TakeCover: live as long as you can under fireballs (Ha & Schmidhuber 2018, section 4).

Action: nothing, right or left. Reward: 1 for every tic alive; an episode ends with death or after 2100 tics, which the
stock environment does not limit. The agent sees the screen, without what lies far above and below the fight.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from worldmodels.errors import UserError
from worldmodels.tasks.base import ExplorationPolicy, Task

_TOP, _BOTTOM = 72, 168
"""Rows of the screen that frames keep, so that far fireballs are more than a pixel: the rest is floor and ceiling."""
_THRESHOLD = 1 / 3
"""Controls beyond it press a key (paper's code)."""
_LONGEST_HOLD = 10
"""An action of the random policy is held for 1 to so many tics (paper's code)."""
_HOLDS = (4, 300)
"""Longest holds of exploring episodes, the shortest and the longest of them; short ones are as common as long ones."""


class TakeCover(Task):
    """ViZDoom's VizdoomTakeCover-v1: its skill, its colours, every tic an action."""

    name = "take-cover"
    title = "Doom TakeCover"
    gymnasium_id = "worldmodels.tasks.take_cover_world:worldmodels/TakeCover-v0"
    observation_shape = (240, 320, 3)
    action_size = 1
    control_size = 1
    action_names = ("left, right",)
    action_ranges = ((-1.0, 1.0),)
    action_space = spaces.Discrete(3)
    seen_rows = (_TOP / 240, _BOTTOM / 240)
    max_steps = 2100
    solved = 750.0
    features = ("z", "c", "h")
    alive_reward = 1.0
    predicts_reward = False
    backends = ("vizdoom",)
    reference_backend = "vizdoom"
    frames_per_second = 35
    lockstep = 50
    at_once = 64

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        if importlib.util.find_spec("vizdoom") is None:
            raise UserError('take-cover needs the missing vizdoom; pip install "worldmodels[doom]"')
        from worldmodels.tasks.take_cover_world import sweep
        from worldmodels.workers.process_env import ProcessVectorEnv

        observation = spaces.Box(0, 255, self.observation_shape, np.uint8)
        sweep()
        return ProcessVectorEnv(
            self.gymnasium_id, num_envs, observation, self.action_space, extra="doom", when_closed=sweep
        )

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Cut 96x320 out of the screen and shrink it to 64x64 with an antialiased bilinear filter."""
        images = torch.from_numpy(observations)[:, _TOP:_BOTTOM].permute(0, 3, 1, 2)
        small = F.interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
        return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Beyond a third to either side: right (1) or left (2); between: nothing (0). (N,) int64."""
        side = control[:, 0]
        return np.where(side > _THRESHOLD, 1, np.where(side < -_THRESHOLD, 2, 0)).astype(np.int64)

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """-1 left, 0 nothing, 1 right."""
        numbers: np.ndarray = np.array([0.0, 1.0, -1.0], np.float32)[np.asarray(actions)]
        return numbers[:, None]

    def dream_action(self, control: Tensor) -> Tensor:
        """As M sees what :meth:`env_action` does, without leaving the device."""
        return (control > _THRESHOLD).float() - (control < -_THRESHOLD).float()

    def exploration(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """Random keys; how long they are held and which are preferred differs: from nervous to stubborn episodes.

        An M that has never seen what comes of standing still, or of leaning on a wall, dreams that nothing does: a C
        evolved there stands still.
        """
        return _Holding(seeds, diverse=True)

    def noisy(self, policy: ExplorationPolicy, seeds: Sequence[int]) -> ExplorationPolicy:
        """The policy, interrupted now and then by random keys; how often differs between episodes."""
        return _Interrupted(policy, seeds)

    def random_policy(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """Uniform keys, redrawn after 1 to 10 tics, as the paper's random policy."""
        return _Holding(seeds)

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """Arrow keys."""
        return np.array(int("right" in held) if "right" in held or "left" not in held else 2, np.int64)


class _Holding:
    """Keys that are redrawn after 1 to 10 tics, one random stream per environment.

    diverse: every environment has its own longest hold, up to a whole game, and its own chances of keys.
    """

    def __init__(self, seeds: Sequence[int], diverse: bool = False) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._chances = [stream.dirichlet(np.ones(3)) if diverse else np.full(3, 1 / 3) for stream in self._streams]
        shortest, longest = np.log(_HOLDS)
        self._longest = [
            int(np.exp(stream.uniform(shortest, longest))) if diverse else _LONGEST_HOLD for stream in self._streams
        ]
        self._actions = np.zeros(len(seeds), np.int64)
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        for row in rows[self._left[rows] == 0].tolist():
            self._actions[row] = self._streams[row].choice(3, p=self._chances[row])
            self._left[row] = self._streams[row].integers(1, self._longest[row] + 1)
        self._left[rows] -= 1
        return np.array(self._actions[rows])


class _Interrupted:
    """A policy whose actions are now and then replaced by a random one for some tics."""

    def __init__(self, policy: ExplorationPolicy, seeds: Sequence[int]) -> None:
        self._policy, self._random = policy, _Holding(seeds)
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        self._chance = np.array([stream.uniform(0.0, 0.04) for stream in self._streams])
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        chosen = np.array(self._policy.act(observations, rows))
        for row in rows[self._left[rows] == 0].tolist():
            if self._streams[row].random() < self._chance[row]:
                self._left[row] = self._streams[row].integers(1, _LONGEST_HOLD + 1)
        disturbed = self._left[rows] > 0
        if disturbed.any():
            chosen[disturbed] = self._random.act(observations[disturbed], rows[disturbed])
            self._left[rows[disturbed]] -= 1
        return chosen
