"""Doom TakeCover: live as long as you can under fireballs (Ha & Schmidhuber 2018, section 4).

Action: nothing, right or left. Reward: 1 for every tic alive; an episode ends with death or after 2100 tics, which the
stock environment does not limit. The agent sees the screen, without what lies far above and below the fight.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from worldmodels.tasks.base import Playing, Policy, ProcessWorld, Task, World
from worldmodels.tasks.take_cover.explorers import HeldKeys, Interrupted
from worldmodels.tasks.take_cover.playing import BOTTOM, ENVIRONMENT, TOP, TakeCoverPlaying
from worldmodels.tasks.take_cover.world import sweep

_THRESHOLD = 1 / 3
"""Controls beyond it press a key (paper's code)."""


class TakeCover(Task):
    """ViZDoom's VizdoomTakeCover-v1: its skill, its colours, every tic an action."""

    name = "take-cover"
    title = "Doom TakeCover"
    observation_shape = (240, 320, 3)
    action_size = 1
    control_size = 1
    action_space = spaces.Discrete(3)
    max_steps = 2100
    inputs = ("z", "c", "h")
    alive_reward = 1.0
    predicts_reward = False
    reference_backend = "vizdoom"
    max_envs = 64

    @property
    def worlds(self) -> Mapping[str, World]:
        """ViZDoom's games, in worker processes."""
        return {"vizdoom": ProcessWorld(ENVIRONMENT, requires=("vizdoom",), extra="doom", cleanup=sweep)}

    @property
    def playing(self) -> Playing:
        """With the arrow keys."""
        return TakeCoverPlaying()

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Cut 96x320 out of the screen and shrink it to 64x64 with an antialiased bilinear filter."""
        images = torch.from_numpy(observations)[:, TOP:BOTTOM].permute(0, 3, 1, 2)
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

    def exploration(self, seeds: Sequence[int]) -> Policy:
        """Random keys; how long they are held and which are preferred differs: from nervous to stubborn episodes.

        An M that has never seen what comes of standing still, or of leaning on a wall, dreams that nothing does: a C
        evolved there stands still.
        """
        return HeldKeys(seeds, diverse=True)

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """The policy, interrupted now and then by random keys; how often differs between episodes."""
        return Interrupted(policy, seeds)

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """Uniform keys, redrawn after 1 to 10 tics, as the paper's random policy."""
        return HeldKeys(seeds)
