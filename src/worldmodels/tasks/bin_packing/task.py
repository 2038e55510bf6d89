"""Online bin packing from pictures: items of random sizes arrive one by one and go into an open bin or a new one.

Action: the level (fill height) of the bin that takes the item; level 0 is a new bin. Reward: the size of the item if
it goes into an open bin, or minus the space left in the bin if it goes into a new one; so the return is minus the free
space of all bins still open. An episode has 1,000 items. The agent sees one of two pictures: the counted one, from
which the number of bins of every level and the item can be read, or the published one. "Published" refers to an
earlier World Models project on bin packing, whose picture and settings this package reproduces for comparison.

Legend: N environments, B levels (the capacity of a bin).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from worldmodels.core.errors import UserError
from worldmodels.tasks.base import ArrayWorld, Playing, Policy, PolicyFor, Task, World
from worldmodels.tasks.bin_packing.explorers import Erring, Packer, RulePolicy
from worldmodels.tasks.bin_packing.picture import fitting_levels, picture_of
from worldmodels.tasks.bin_packing.playing import BinPackingPlaying
from worldmodels.tasks.bin_packing.rules import RULES
from worldmodels.tasks.bin_packing.world import BinPackingVectorEnv, probabilities_of

if TYPE_CHECKING:
    from torch import Tensor


class BinPacking(Task):
    """Bins of one capacity and items of one distribution; by default 30 and "perfect-packing", as published."""

    name = "bin-packing"
    title = "Bin packing"
    observation_shape: tuple[int, ...] = (64, 64, 3)
    max_steps = 1000
    predicts_end = False
    reference_backend = "native"
    num_envs = 250
    masked = True
    inputs = ("z",)
    rules = tuple(RULES)
    capacity = 30
    distribution = "perfect-packing"
    encoding = "counted"
    """How the state is drawn: one of the ENCODINGS of picture.py."""

    def __init__(self) -> None:
        self.action_size = self.control_size = self.capacity
        self.reward_scale = float(self.capacity)
        self.action_space = spaces.Discrete(self.capacity)

    @property
    def worlds(self) -> Mapping[str, World]:
        """One backend: an array program that steps all instances at once."""
        return {"native": ArrayWorld(self._observing_pictures)}

    @property
    def playing(self) -> Playing:
        """Played by typing numbers and by clicking."""
        return BinPackingPlaying(self.capacity, self._options)

    def _observing_pictures(self, num_envs: int) -> VectorEnv:
        return self._world(num_envs, "picture")

    def _world(self, num_envs: int, observation: str) -> VectorEnv:
        return BinPackingVectorEnv(num_envs, observation=observation, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        chosen = {"capacity": self.capacity, "distribution": self.distribution, "items": self.max_steps}
        return {**chosen, "encoding": self.encoding}

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """The observations, which are frames already."""
        return observations

    def action_mask(self, frames: np.ndarray) -> np.ndarray:
        """The levels that have room for the item, (N, B) bool, read off the picture; level 0, a new bin, always has."""
        return fitting_levels(frames, self.capacity, self.encoding)

    def state(self, env: VectorEnv) -> Mapping[str, np.ndarray]:
        """Open bins of every level, the item's size as a quantity and as a category, and the levels it may go to."""
        world = cast(BinPackingVectorEnv, env)
        state = world.state()
        return {
            "bins at level": state[:, :-1].astype(np.float64),
            "size of the item": state[:, -1].astype(np.float64),
            "which item": state[:, -1].astype(np.int64),
            "level is allowed": world.action_mask(),
        }

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """The level with the largest control, (N,) int64."""
        return np.asarray(control.argmax(axis=1))

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """The level as a one-hot vector, (N, B) float32."""
        hot: np.ndarray = np.eye(self.capacity, dtype=np.float32)[np.asarray(actions)]
        return hot

    def dream_action(self, control: "Tensor") -> "Tensor":
        """The level of :meth:`env_action` as a one-hot vector, (N, B) float32, without leaving the device."""
        import torch

        return torch.nn.functional.one_hot(control.argmax(dim=1), self.capacity).float()

    def exploration(self, seeds: Sequence[int]) -> Policy:
        """Random packers whose preference for fuller or emptier bins and rate of errors differ between episodes."""
        return Packer(seeds, self, careful=True)

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        """The policy, with random allowed levels in place of its own at a rate that differs between episodes."""
        return Erring(policy, Packer(seeds, self), seeds)

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        """Uniformly random allowed levels."""
        return Packer(seeds, self)

    def rule(self, name: str) -> "tuple[Task, PolicyFor]":
        """The rule called ``name`` as a policy, and the task that gives it what it needs: states as observations.

        Raises :class:`UserError` for an unknown name.
        """
        if name not in RULES:
            raise UserError(f"unknown rule {name!r}; choose from {', '.join(RULES)}")
        return _ByState(self), lambda seeds: RulePolicy(RULES[name], seeds)


class _ByState(BinPacking):
    """The same world with states (N, B+1) int32 as observations, for rules; its frames are drawn from the states."""

    def __init__(self, task: BinPacking) -> None:
        self.name, self.title, self.max_steps = task.name, task.title, task.max_steps
        self.capacity, self.distribution, self.encoding = task.capacity, task.distribution, task.encoding
        super().__init__()
        self.observation_shape = (self.capacity + 1,)
        largest = len(probabilities_of(self.distribution, self.capacity))
        self._picture = picture_of(self.encoding, self.capacity, self.max_steps, largest)

    @property
    def worlds(self) -> Mapping[str, World]:
        """The same backend, with states as observations."""
        return {"native": ArrayWorld(lambda num_envs: self._world(num_envs, "state"))}

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """The frames (N, 64, 64, 3) uint8 that show states (N, B+1)."""
        return self._picture(observations[:, :-1], observations[:, -1])


def variant(capacity: int, distribution: str) -> type[BinPacking]:
    """A class of the task with another capacity and distribution of item sizes."""
    values = {
        "name": f"bin-packing-{capacity}-{distribution}",
        "title": f"Bin packing, capacity {capacity}, {distribution.replace('-', ' ')}",
        "capacity": capacity,
        "distribution": distribution,
    }
    return type("BinPackingVariant", (BinPacking,), values)


class Published(BinPacking):
    """The task with the published picture."""

    name = "bin-packing-published"
    title = "Bin packing, published picture"
    encoding = "published"


SmallLinearWaste = variant(9, "linear-waste")
SmallPerfectPacking = variant(9, "perfect-packing")
SmallBoundedWaste = variant(9, "bounded-waste")
