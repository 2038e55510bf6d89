"""Doom TakeCover: dodge fireballs and survive for as long as possible (Ha & Schmidhuber 2018, section 4).

Action: nothing, right or left. Reward: 1 for every tic alive. An episode ends with death or after 2100 tics; the stock
environment itself has no limit. The agent sees the screen without its highest and lowest rows. The screen after death
is black: recorded episodes that end with death end with a black frame, which neither V nor M learns.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from gymnasium import spaces

from worldmodels.tasks.base import Mirror, Playing, Policy, ProcessWorld, Task, World
from worldmodels.tasks.resize import resized
from worldmodels.tasks.take_cover.explorers import HeldKeys, Interrupted
from worldmodels.tasks.take_cover.leftovers import check_shared_memory, sweep
from worldmodels.tasks.take_cover.playing import BOTTOM, ENVIRONMENT, TOP, TakeCoverPlaying

if TYPE_CHECKING:
    from torch import Tensor

_THRESHOLD = 1 / 3
"""A control above it presses one key, a control below minus it the other (paper's code)."""


class TakeCover(Task):
    """ViZDoom's VizdoomTakeCover-v1 with its own skill level and colours, and one action per tic."""

    name = "take-cover"
    title = "Doom TakeCover"
    observation_shape = (240, 320, 3)
    action_size = 1
    control_size = 1
    action_space = spaces.Discrete(3)
    max_steps = 2100
    clock_steps = 2100  # one more imp comes every 60 tics, most of them beyond the screen
    inputs = ("z", "c", "h")
    alive_reward = 1.0
    predicts_reward = False
    shows_end = False
    full_health = 100.0
    mirror = Mirror(actions=(-1,), controls=(-1,))
    reference_backend = "vizdoom"
    max_envs = 64

    @property
    def worlds(self) -> Mapping[str, World]:
        """ViZDoom's game in worker processes."""
        game = ProcessWorld(ENVIRONMENT, requires=("vizdoom",), extra="doom", cleanup=sweep, check=check_shared_memory)
        return {"vizdoom": game}

    @property
    def playing(self) -> Playing:
        """Played with the arrow keys."""
        return TakeCoverPlaying()

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Crop 96x320 pixels of the screen and resize them to 64x64 with an antialiased bilinear filter."""
        return resized(observations[:, TOP:BOTTOM])

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Actions (N,) int64: 1 (right) for controls above 1/3, 2 (left) below -1/3, else 0 (nothing)."""
        side = control[:, 0]
        return np.where(side > _THRESHOLD, 1, np.where(side < -_THRESHOLD, 2, 0)).astype(np.int64)

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """One number per action, (N, 1) float32: -1 left, 0 nothing, 1 right."""
        numbers: np.ndarray = np.array([0.0, 1.0, -1.0], np.float32)[np.asarray(actions)]
        return numbers[:, None]

    def dream_action(self, control: "Tensor") -> "Tensor":
        """Numbers (N, 1) float32 that encode the actions of :meth:`env_action` for M, without leaving the device."""
        return (control > _THRESHOLD).float() - (control < -_THRESHOLD).float()

    def exploration(self, seeds: Sequence[int]) -> Policy:
        """Random actions; how long they are held and how probable each is differ between episodes.

        If no recorded player stands still or stays at a wall, M does not learn that this is deadly, and a C evolved in
        M's dreams stands still.
        """
        return HeldKeys(seeds, diverse=True)

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """The policy, interrupted by random actions at a rate that differs between episodes."""
        return Interrupted(policy, seeds)

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """Uniformly random actions, each held for 1 to 10 tics, like the paper's random policy."""
        return HeldKeys(seeds)
