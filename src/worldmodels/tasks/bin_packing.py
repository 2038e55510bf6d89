"""Online bin packing from pictures: items of random sizes arrive, each goes into an open bin or a new one.

Action: the level of the bin that takes the item; 0 is a new bin. Reward: the size of an item that goes into an open
bin, minus the space left in a new one; so the return is minus the free space of all bins still open. An episode has
1,000 items. What the agent sees is the counted picture, from which every bin and the item can be read, or the published
one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from gymnasium import Env, spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from worldmodels.errors import UserError
from worldmodels.tasks.base import Board, ExplorationPolicy, Task
from worldmodels.tasks.bin_packing_picture import fitting_levels, picture_of
from worldmodels.tasks.bin_packing_rules import RULES, Rule
from worldmodels.tasks.bin_packing_world import ENVIRONMENT, BinPackingEnv, BinPackingVectorEnv, probabilities_of


class BinPacking(Task):
    """Bins of one capacity and items of one distribution; by default 30 and perfect packing, as published."""

    name = "bin-packing"
    title = "Bin packing"
    gymnasium_id = f"worldmodels.tasks.bin_packing_world:{ENVIRONMENT}"
    observation_shape: tuple[int, ...] = (64, 64, 3)
    max_steps = 1000
    solved = -26.6
    predicts_end = False
    backends = ("native",)
    reference_backend = "native"
    frames_per_second = 5
    lockstep = 250
    masked = True
    features = ("z",)
    rules = tuple(RULES)
    capacity = 30
    distribution = "perfect-packing"
    encoding = "counted"
    """The picture, one of ENCODINGS."""

    def __init__(self) -> None:
        self.action_size = self.control_size = self.capacity
        self.reward_scale = float(self.capacity)
        self.action_space = spaces.Discrete(self.capacity)
        self.action_names = tuple(f"level {level}" for level in range(self.capacity))
        self.action_ranges = ((0.0, 1.0),) * self.capacity

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        return self._world(num_envs, "picture")

    def _world(self, num_envs: int, observation: str) -> VectorEnv:
        return BinPackingVectorEnv(num_envs, observation=observation, **self._options)

    @property
    def _options(self) -> dict[str, Any]:
        chosen = {"capacity": self.capacity, "distribution": self.distribution, "items": self.max_steps}
        return {**chosen, "encoding": self.encoding}

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Observations are frames."""
        return observations

    def allowed(self, frames: np.ndarray) -> np.ndarray:
        """Levels that take the item, (N, B) bool, read off the picture; a new bin always is one."""
        return fitting_levels(frames, self.capacity, self.encoding)

    def state(self, env: VectorEnv) -> Mapping[str, np.ndarray]:
        """Open bins of every level, the item as a number and as a kind, and the levels it may go to."""
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
        """One-hot, (N, B) float32."""
        hot: np.ndarray = np.eye(self.capacity, dtype=np.float32)[np.asarray(actions)]
        return hot

    def dream_action(self, control: Tensor) -> Tensor:
        """As M sees what :meth:`env_action` chooses, without leaving the device."""
        return torch.nn.functional.one_hot(control.argmax(dim=1), self.capacity).float()

    def exploration(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """Packers from careless to careful: each likes fuller or emptier bins to its own degree, and errs at times."""
        return _Packer(seeds, self, careful=True)

    def noisy(self, policy: ExplorationPolicy, seeds: Sequence[int]) -> ExplorationPolicy:
        """The policy, in some steps replaced by a random allowed level; how often differs between episodes."""
        return _Erring(policy, _Packer(seeds, self), seeds)

    def random_policy(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """Uniform over the allowed levels."""
        return _Packer(seeds, self)

    def rule(self, name: str) -> "tuple[Task, Callable[[Sequence[int]], ExplorationPolicy]]":
        """The rule called ``name`` as a policy, and the world as it sees it: by its state."""
        if name not in RULES:
            raise UserError(f"unknown rule {name!r}; choose from {', '.join(RULES)}")
        return _ByState(self), lambda seeds: _Ruled(RULES[name], seeds)

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """Arrow keys say too little here, the board is for people: a new bin."""
        return np.array(0, np.int64)

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """Pictures of this variant."""
        return {**self._options, "observation": "picture"}

    def board(self) -> Board:
        """Open bins side by side."""
        from worldmodels.tasks.bin_packing_board import BinsBoard

        return BinsBoard(self.capacity)

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """Bins that are open and bins that were filled and have left."""
        instances = cast(BinPackingEnv, env.unwrapped).instances
        return {"open bins": int(instances.state()[0, :-1].sum()), "full bins": int(instances.full_bins[0])}


class _ByState(BinPacking):
    """The same world with the state vector as observation, for rules; its frames are drawn from the states."""

    def __init__(self, task: BinPacking) -> None:
        self.name, self.title, self.max_steps = task.name, task.title, task.max_steps
        self.capacity, self.distribution, self.encoding = task.capacity, task.distribution, task.encoding
        super().__init__()
        self.observation_shape = (self.capacity + 1,)
        largest = len(probabilities_of(self.distribution, self.capacity))
        self._picture = picture_of(self.encoding, self.capacity, self.max_steps, largest)

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        return self._world(num_envs, "state")

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """The pictures of states (N, B+1)."""
        return self._picture(observations[:, :-1], observations[:, -1])


def variant(capacity: int, distribution: str) -> type[BinPacking]:
    """The task with another capacity and distribution."""
    values = {
        "name": f"bin-packing-{capacity}-{distribution}",
        "title": f"Bin packing, capacity {capacity}, {distribution.replace('-', ' ')}",
        "capacity": capacity,
        "distribution": distribution,
    }
    return type("BinPackingVariant", (BinPacking,), values)


class Published(BinPacking):
    """The world as the published project draws it."""

    name = "bin-packing-published"
    title = "Bin packing, published picture"
    encoding = "published"


SmallLinearWaste = variant(9, "linear-waste")
SmallPerfectPacking = variant(9, "perfect-packing")
SmallBoundedWaste = variant(9, "bounded-waste")


class _Ruled:
    """A rule with one random stream for all its rows."""

    def __init__(self, rule: Rule, seeds: Sequence[int]) -> None:
        self._rule, self._random = rule, np.random.default_rng(list(seeds))

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._rule(observations, self._random)


class _Packer:
    """Chooses allowed levels by chance, one random stream per environment."""

    def __init__(self, seeds: Sequence[int], task: BinPacking, careful: bool = False) -> None:
        self._streams, self._task = [np.random.default_rng(seed) for seed in seeds], task
        draw = np.array([stream.random(2) for stream in self._streams])
        # How much likelier the fullest level is than the emptiest, as an exponent: 0 is uniform.
        self._taste = np.where(careful, 12 * draw[:, 0] - 2, 0.0)
        self._errs = np.where(careful, 0.3 * draw[:, 1] ** 2, 0.0)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        allowed = self._task.allowed(self._task.frames(observations))
        place = np.linspace(0, 1, allowed.shape[1])
        chances = np.stack([self._streams[row].random(allowed.shape[1] + 1) for row in rows.tolist()])
        taste = np.where(chances[:, -1] < self._errs[rows], 0.0, self._taste[rows])
        # The largest of log-chance plus Gumbel noise is a draw from the softmax.
        gumbel = -np.log(-np.log(np.clip(chances[:, :-1], 1e-12, 1 - 1e-12)))
        return np.asarray(np.where(allowed, taste[:, None] * place + gumbel, -np.inf).argmax(axis=1))


class _Erring:
    """A policy of whose choices some are replaced."""

    def __init__(self, policy: ExplorationPolicy, other: ExplorationPolicy, seeds: Sequence[int]) -> None:
        self._policy, self._other = policy, other
        self._streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        self._chance = np.array([0.2 * stream.random() ** 2 for stream in self._streams])

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        chosen, other = self._policy.act(observations, rows), self._other.act(observations, rows)
        errs = np.array([self._streams[row].random() for row in rows.tolist()]) < self._chance[rows]
        return np.where(errs, other, chosen)
