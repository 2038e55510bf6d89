"""Online stochastic bin packing as Gymnasium environments; one array program steps thousands of instances at once.

Items of random sizes arrive one by one; each goes into an open bin of a chosen level (fill height), or into a new bin
(level 0). A full bin is removed. The return is minus the free space of the open bins. The environment is that of AWS
Labs' or-rl-benchmarks. Legend: N instances, B capacity.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.core.errors import UserError
from worldmodels.core.seeds import row_seeds
from worldmodels.tasks.bin_packing.picture import ENCODINGS, picture_of

ENVIRONMENT = "worldmodels/BinPacking-v0"
"""The id for ``gymnasium.make`` and ``gymnasium.make_vec``."""
INVALID = ("end", "continue", "nearest")
"""What happens if the chosen level has no room for the item: the episode ends, it continues without the item, or the
item goes to the nearest level that has room."""
_PENALTY = 100.0
_LARGE = {
    "linear-waste": (0, 0, 0, 1 / 3, 0, 0, 0, 0, 2 / 3),
    "perfect-packing": (0.06, 0.11, 0.11, 0.22, 0, 0.11, 0.06, 0, 0.33),
    "bounded-waste": (0.14, 0.10, 0.06, 0.13, 0.11, 0.13, 0.03, 0.11, 0.19),
}
_SMALL = {
    "linear-waste": (0, 0.8, 0.2),
    "perfect-packing": (0, 0.75, 0.25),
    "bounded-waste": (0, 0.5, 0.5),
}
DISTRIBUTIONS = tuple(_LARGE)
"""Distributions of item sizes with AWS Labs' probabilities, named by how the waste of the best policy grows (theory of
Gupta and Radovanovic)."""


def probabilities_of(distribution: str | Sequence[float], capacity: int) -> np.ndarray:
    """Probabilities (S,) of the item sizes 1 to S: of a named distribution, or as they are given.

    The named distributions are those of AWS Labs for small bins up to capacity 9 (sizes 1 to 3), and those for large
    bins from capacity 30 on (sizes 1 to 9). Raises :class:`UserError` for an unknown name, for a name with a capacity
    between these, for numbers that are no probabilities, and for items that are larger than the capacity.
    """
    if isinstance(distribution, str):
        if distribution not in DISTRIBUTIONS:
            raise UserError(f"unknown distribution {distribution!r}; choose from {', '.join(DISTRIBUTIONS)}")
        if 9 < capacity < 30:
            raise UserError(
                f"expected a capacity up to 9 or from 30 on for the distribution {distribution!r}, got {capacity}; "
                "change it, or give the probabilities of the item sizes 1, 2, ... as the distribution"
            )
        probabilities = np.array((_SMALL if capacity < 30 else _LARGE)[distribution], np.float64)
    else:
        probabilities = np.array(distribution, np.float64)
        usable = probabilities.ndim == 1 and len(probabilities) > 0 and np.isfinite(probabilities).all()
        if not usable or (probabilities < 0).any():
            raise UserError("expected the probabilities of item sizes 1, 2, ... as numbers of at least 0")
        total = probabilities.sum()
        if abs(total - 1) > 1e-6:
            raise UserError(f"expected probabilities of item sizes that sum to 1, they sum to {total:g}")
    largest = int(np.flatnonzero(probabilities)[-1]) + 1
    if largest > capacity:
        raise UserError(f"expected items of at most the capacity {capacity}, some have size {largest}")
    return probabilities


class BinPackingVectorEnv(VectorEnv[Any, np.ndarray, np.ndarray]):
    """N instances stepped at once; a row that has ended stays as it is, with reward 0, until it is reset.

    capacity: of every bin; distribution: a name or the probabilities of sizes 1, 2, ...; items: length of an episode;
    invalid: one of INVALID, which applies when the chosen level has no room for the item; observation: "state", (N,
    B+1) int32, the open bins of every level and the item's size, or "picture", (N, 64, 64, 3) uint8 in the given
    encoding; mask: the observation is a dict of action_mask (N, B) int8 and real_obs; continuous: actions (N, 1) are
    numbers a in [0, 1] that stand for the level int(a * (B - 1)); autoreset_mode: DISABLED or SAME_STEP.
    ``info["action_mask"]``, (N, B) bool, is always given. Raises :class:`UserError` for a value that is not possible.
    """

    def __init__(
        self,
        num_envs: int = 1,
        capacity: int = 30,
        distribution: str | Sequence[float] = "perfect-packing",
        items: int = 1000,
        invalid: str = "end",
        observation: str = "state",
        encoding: str = "counted",
        mask: bool = False,
        continuous: bool = False,
        autoreset_mode: AutoresetMode = AutoresetMode.DISABLED,
        render_mode: str | None = None,
    ) -> None:
        _check(num_envs, capacity, items, invalid, observation, encoding, autoreset_mode)
        probabilities = probabilities_of(distribution, capacity)
        self.num_envs, self.capacity, self.items, self.render_mode = num_envs, capacity, items, render_mode
        self.metadata = {"autoreset_mode": autoreset_mode, "render_modes": ["rgb_array"], "render_fps": 5}
        self._mode, self._invalid, self._continuous, self._mask = autoreset_mode, invalid, continuous, mask
        self._edges, self._largest = np.cumsum(probabilities)[:-1], len(probabilities)
        if encoding == "published" and (capacity != 30 or self._largest > 9):
            raise UserError(f"the published picture is for capacity 30 and items up to 9, not {capacity}; use counted")
        self._picture = picture_of(encoding, capacity, items, self._largest)
        self._pictures = observation == "picture"
        if self._pictures:
            space: spaces.Space[Any] = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        else:
            high = np.append(np.full(capacity, items), self._largest).astype(np.int32)
            space = spaces.Box(np.zeros_like(high), high, dtype=np.int32)
        if mask:
            space = spaces.Dict({"action_mask": spaces.Box(0, 1, (capacity,), np.int8), "real_obs": space})
        self.single_observation_space = space
        self.single_action_space = spaces.Box(0, 1, (1,), np.float32) if continuous else spaces.Discrete(capacity)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        # Column B counts the full bins, which are removed, so that a placement that fills a bin is no special case.
        self._counts = np.zeros((num_envs, capacity + 1), np.int32)
        self._base = np.arange(num_envs) * (capacity + 1)
        self._levels = np.arange(capacity)
        self._sizes = np.zeros((num_envs, items + 1), np.int64)
        self._time = np.zeros(num_envs, np.int64)
        self._item = np.zeros(num_envs, np.int64)
        self._before = np.zeros(num_envs)
        self._alive = np.zeros(num_envs, bool)
        self._seeds = np.random.SeedSequence()
        self._begun = False

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes with empty bins and new items; observations, and info with the action mask.

        seed: one per row, or one for all; ``options={"reset_mask": mask}`` resets only the rows of ``mask`` (N,) bool.
        """
        reset_mask = (options or {}).get("reset_mask")
        rows = np.arange(self.num_envs) if reset_mask is None or not self._begun else np.flatnonzero(reset_mask)
        if seed is None:
            seeds = [int(word) for word in self._seeds.spawn(1)[0].generate_state(max(1, len(rows)))]
        else:
            all_seeds = row_seeds(seed, self.num_envs)
            self._seeds, seeds = np.random.SeedSequence(all_seeds), [all_seeds[row] for row in rows.tolist()]
        self._begin(rows, seeds)
        self._begun = True
        return self._observe(), {"action_mask": self.action_mask()}

    def _begin(self, rows: np.ndarray, seeds: Sequence[int]) -> None:
        for row, seed in zip(rows.tolist(), seeds, strict=False):
            drawn = np.random.default_rng(seed).random(self.items + 1)
            self._sizes[row] = np.searchsorted(self._edges, drawn, side="right") + 1
        self._counts[rows], self._time[rows], self._before[rows] = 0, 0, 0.0
        self._item[rows] = self._sizes[rows, 0]
        self._alive[rows] = True

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Place the item of every row in a bin of level ``actions`` (N,).

        Raises :class:`UserError` before the first reset and for actions that are no levels.
        """
        if not self._begun:
            raise UserError("expected reset before step: no episode has begun")
        level, alive, item = self._levels_of(actions), self._alive, self._item
        flat = self._counts.reshape(-1)
        fits = (level == 0) | ((flat[self._base + level] > 0) & (level + item <= self.capacity))
        if self._invalid == "nearest" and not fits.all():
            wrong = ~fits
            level = np.where(wrong, self._nearest(level), level)
            fits = np.ones_like(fits)
        placed = fits & alive
        flat[self._base + level] -= placed
        flat[self._base + np.minimum(level + item, self.capacity)] += placed
        self._counts[:, 0] = 0
        rewards = np.where(level == 0, item - self.capacity, item).astype(np.float64)
        rewards = np.where(fits, rewards, self._before - _PENALTY) * alive
        self._before = np.where(fits, rewards, self._before)
        self._time += alive
        truncated = alive & (self._time >= self.items)
        terminated = alive & ~fits if self._invalid == "end" else np.zeros_like(alive)
        truncated &= ~terminated
        over = terminated | truncated
        self._alive = alive & ~over
        self._item = np.where(alive, self._sizes[np.arange(self.num_envs), self._time], item)
        info: dict[str, Any] = {}
        if self._mode == AutoresetMode.SAME_STEP and over.any():
            info = {"final_obs": self._last(over), "_final_obs": over}
            rows = np.flatnonzero(over)
            self._begin(rows, [int(word) for word in self._seeds.spawn(1)[0].generate_state(len(rows))])
        info["action_mask"] = self.action_mask()
        return self._observe(), rewards, terminated, truncated, info

    def _levels_of(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        if self._continuous:
            actions = actions.reshape(self.num_envs, -1)[:, 0].astype(np.float64)
            if not ((actions >= 0) & (actions <= 1)).all():
                raise UserError(f"expected actions from 0 to 1, got {actions.min():g} to {actions.max():g}")
            return (actions * (self.capacity - 1)).astype(np.int64)
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise UserError(f"expected {self.num_envs} whole numbers as actions, got {actions.dtype} {actions.shape}")
        if actions.min() < 0 or actions.max() >= self.capacity:
            wrong = actions.min() if actions.min() < 0 else actions.max()
            raise UserError(f"expected levels from 0 to {self.capacity - 1} as actions, got {wrong}")
        return actions.astype(np.int64)

    def _nearest(self, level: np.ndarray) -> np.ndarray:
        """The open level nearest to ``level`` (N,) that has room for the item, of two the lower; 0 if there is none."""
        distance = np.abs(self._levels - level[:, None]) * 2.0 + (self._levels > level[:, None])
        distance = np.where(self.action_mask() & (self._levels > 0), distance, np.inf)
        return np.where(np.isfinite(distance.min(axis=1)), distance.argmin(axis=1), 0)

    def _last(self, over: np.ndarray) -> np.ndarray:
        final = np.full(self.num_envs, None, dtype=object)
        last = self._observe()
        for row in np.flatnonzero(over).tolist():
            final[row] = {name: part[row] for name, part in last.items()} if self._mask else last[row]
        return final

    def action_mask(self) -> np.ndarray:
        """The levels that have room for the item, (N, B) bool; level 0, a new bin, always has."""
        valid: np.ndarray = (self._counts[:, : self.capacity] > 0) & (
            self._levels <= (self.capacity - self._item)[:, None]
        )
        valid[:, 0] = True
        return valid

    def state(self) -> np.ndarray:
        """Open bins of every level, and the item's size, (N, B+1) int32."""
        state = self._counts.copy()
        state[:, self.capacity] = self._item
        return state

    def _observe(self) -> Any:
        observation = self.frames() if self._pictures else self.state()
        if not self._mask:
            return observation
        return {"action_mask": self.action_mask().astype(np.int8), "real_obs": observation}

    def frames(self) -> np.ndarray:
        """Pictures of the instances, (N, 64, 64, 3) uint8."""
        return self._picture(self._counts[:, : self.capacity], self._item)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """N pictures (64, 64, 3) uint8 if the render_mode is "rgb_array", else None."""
        return tuple(self.frames()) if self.render_mode == "rgb_array" else None

    @property
    def full_bins(self) -> np.ndarray:
        """How many bins were filled completely and removed, (N,) int32."""
        return np.array(self._counts[:, self.capacity])


class BinPackingEnv(gymnasium.Env[Any, Any]):
    """A single instance; the options are those of :class:`BinPackingVectorEnv`."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.instances = BinPackingVectorEnv(1, render_mode=render_mode, **options)
        self.render_mode = render_mode
        self.observation_space = self.instances.single_observation_space
        self.action_space = self.instances.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first observation of a new episode; info holds action_mask (B,) bool."""
        super().reset(seed=seed)
        episode_seed = int(self.np_random.integers(1 << 31)) if seed is None else seed
        observations, info = self.instances.reset(seed=[episode_seed])
        return self._first(observations), {"action_mask": info["action_mask"][0]}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Place the item in a bin of level ``action``."""
        observations, rewards, terminated, truncated, info = self.instances.step(np.asarray(action)[None])
        observation, mask = self._first(observations), {"action_mask": info["action_mask"][0]}
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), mask

    def _first(self, observations: Any) -> Any:
        if isinstance(observations, dict):
            return {name: part[0] for name, part in observations.items()}
        return observations[0]

    def render(self) -> Any:
        """The picture (64, 64, 3) uint8 if the render_mode is "rgb_array", else None."""
        pictures = self.instances.render()
        return None if pictures is None else pictures[0]


def _check(
    num_envs: int,
    capacity: int,
    items: int,
    invalid: str,
    observation: str,
    encoding: str,
    autoreset_mode: AutoresetMode,
) -> None:
    for name, value, least in (("num_envs", num_envs, 1), ("capacity", capacity, 2), ("items", items, 1)):
        if value < least:
            raise UserError(f"expected {name} of at least {least}, got {value}")
    for name, chosen, choices in (
        ("invalid", invalid, INVALID),
        ("observation", observation, ("state", "picture")),
        ("encoding", encoding, ENCODINGS),
    ):
        if chosen not in choices:
            raise UserError(f"unknown {name} {chosen!r}; choose from {', '.join(choices)}")
    if autoreset_mode not in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP):
        raise UserError(f"expected autoreset_mode DISABLED or SAME_STEP, got {autoreset_mode}")


if ENVIRONMENT not in gymnasium.registry:
    gymnasium.register(
        ENVIRONMENT,
        f"{__name__}:{BinPackingEnv.__name__}",
        vector_entry_point=f"{__name__}:{BinPackingVectorEnv.__name__}",
    )
