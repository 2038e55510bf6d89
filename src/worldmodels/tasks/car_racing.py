"""CarRacing-v3: steer a car over a new random track in every episode (Ha & Schmidhuber 2018, section 3).

Action: steer in [-1, 1], gas in [0, 1], brake in [0, 1]. Reward: 1000/N for each of the track's N tiles when first
visited, -0.1 for every frame, -100 for leaving the playfield. An episode ends after a lap, off the playfield, or at
1000 steps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import Env, spaces
from gymnasium.vector import VectorEnv
from torch import Tensor

from worldmodels.tasks.base import ExplorationPolicy, Task

_BAR_ROWS = 12
"""Rows of the indicator bar at the bottom, cut away as in the paper's code."""


class CarRacing(Task):
    """Gymnasium's CarRacing-v3, or EnvPool's port of it, which is an order of magnitude faster."""

    name = "car-racing"
    title = "CarRacing"
    gymnasium_id = "CarRacing-v3"
    observation_shape = (96, 96, 3)
    action_size = 3
    control_size = 3
    action_names = ("steer", "gas", "brake")
    action_ranges = ((-1.0, 1.0), (0.0, 1.0), (0.0, 1.0))
    seen_rows = (0.0, 84 / 96)
    max_steps = 1000
    # The view zooms in for a second; in the first frames the road is a hair, and M cannot know where it leads.
    dream_begins = (60, 75, 90, 105)
    solved = 900.0
    action_space = spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))
    backends = ("envpool", "gymnasium")
    reference_backend = "gymnasium"

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        observation = spaces.Box(0, 255, self.observation_shape, np.uint8)
        if backend == "envpool":
            from worldmodels.workers.envpool_env import EnvPoolVectorEnv

            return EnvPoolVectorEnv("CarRacing-v3", num_envs, observation, self.action_space, self.max_steps)
        from worldmodels.workers.process_env import ProcessVectorEnv

        return ProcessVectorEnv("CarRacing-v3", num_envs, observation, self.action_space, requires=("Box2D", "pygame"))

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Cut the bar away and shrink 84x96 to 64x64 with an antialiased bilinear filter.

        Antialiasing matters twice: V sees thin kerbs without flicker, and the two renderers, one with hard edges and
        one with smoothed ones, look more alike.
        """
        images = torch.from_numpy(observations)[:, :-_BAR_ROWS].permute(0, 3, 1, 2)
        small = F.interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
        return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())

    def env_action(self, control: np.ndarray) -> np.ndarray:
        """Steer = c0, gas = (c1 + 1) / 2, brake = clip(c2, 0, 1), as in the paper's code."""
        steer, gas, brake = control[:, 0], (control[:, 1] + 1) / 2, np.clip(control[:, 2], 0, 1)
        return np.stack([steer, gas, brake], axis=1).astype(np.float32)

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """M sees the action as it is."""
        return np.asarray(actions, dtype=np.float32)

    def dream_action(self, control: Tensor) -> Tensor:
        """As :meth:`env_action`, without leaving the device."""
        steer, gas, brake = control[:, 0], (control[:, 1] + 1) / 2, control[:, 2].clamp(0, 1)
        return torch.stack([steer, gas, brake], dim=1)

    def exploration(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """Noisy drivers: some wander, most follow the road at a random pace."""
        return _Explorer(seeds)

    def noisy(self, policy: ExplorationPolicy, seeds: Sequence[int]) -> ExplorationPolicy:
        """The policy with Ornstein-Uhlenbeck noise and lapses, of a strength and frequency that differ."""
        return _Noisy(policy, seeds)

    def random_policy(self, seeds: Sequence[int]) -> ExplorationPolicy:
        """Uniform actions, redrawn at every step."""
        return _Uniform(seeds)

    def key_action(self, held: frozenset[str]) -> np.ndarray:
        """Arrow keys: left/right steer fully, up is full gas, down brakes at 0.8 (the original's keys)."""
        steer = float("right" in held) - float("left" in held)
        return np.array([steer, float("up" in held), 0.8 * float("down" in held)], dtype=np.float32)

    def readings(self, env: Env[Any, Any]) -> dict[str, float]:
        """The car's speed in the world's units per second."""
        hull = env.unwrapped.car.hull  # type: ignore[attr-defined]
        return {"speed": float(np.hypot(*hull.linearVelocity))}


_LOW, _HIGH = np.array([-1.0, 0.0, 0.0]), np.ones(3)
"""Bounds of steer, gas and brake."""


def _clip(actions: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(actions, _LOW, _HIGH), dtype=np.float32)


_LAPSES, _LONGEST_LAPSE = 0.02, 50
"""Most frequent lapses of a noisy driver, per step, and the longest, in steps."""


class _Uniform:
    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        actions = [self._streams[row].uniform(_LOW, _HIGH) for row in rows.tolist()]
        return np.array(actions, dtype=np.float32)


class _Noise:
    """Ornstein-Uhlenbeck noise on three controls, one random stream per environment; standard deviation about 0.57."""

    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        self._streams = streams
        self._values = np.zeros((len(streams), 3))

    def draw(self, rows: np.ndarray) -> np.ndarray:
        kicks = np.array([self._streams[row].standard_normal(3) for row in rows.tolist()])
        self._values[rows] += -0.1 * self._values[rows] + 0.25 * kicks
        return np.array(self._values[rows])


class _Noisy:
    """A driver with shaking hands who now and then holds some other action for up to a second.

    Where drivers always follow the road, M cannot tell whether the car turns because they steer or because the road
    does, and dreams of a car that follows the road by itself.
    """

    def __init__(self, policy: ExplorationPolicy, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._policy, self._noise = policy, _Noise(self._streams)
        draw = np.array([stream.random(2) for stream in self._streams])
        self._scale, self._chance = 0.6 * draw[:, 0], _LAPSES * draw[:, 1]
        self._held = np.zeros((len(seeds), 3))
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        actions = self._policy.act(observations, rows) + self._noise.draw(rows) * self._scale[rows, None]
        for row in rows[self._left[rows] == 0].tolist():
            stream = self._streams[row]
            if stream.random() < self._chance[row]:
                self._left[row] = stream.integers(5, _LONGEST_LAPSE + 1)
                gas, brake = stream.random() * (stream.random(2) < (0.6, 0.2))
                self._held[row] = 0.5 * stream.standard_normal(), gas, brake
        lapsed = self._left[rows] > 0
        actions[lapsed] = self._held[rows[lapsed]]
        self._left[rows[lapsed]] -= 1
        return _clip(actions)


class _Explorer:
    """Ornstein-Uhlenbeck noise on every control, around either a random bias or a crude sense of where the road is.

    Random driving leaves the road within seconds and then shows V and M nothing but grass: it never sees a corner at
    speed. A quarter of the episodes here wander like that, with a steering bias and a mean gas of their own. The others
    steer towards grey pixels ahead, at a speed of their own, so that every track is seen to its end; the noise
    makes them skid, leave the road and return to it.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        draw = np.array([stream.random(6) for stream in self._streams])
        self._follows = draw[:, 0] < 0.75
        self._gas = np.where(self._follows, 0.0, 0.6 * draw[:, 1])
        self._bias = np.where(self._follows, 0.15, 0.5) * (2 * draw[:, 2] - 1)
        self._pace = 25 + 50 * draw[:, 3]
        self._gain = 0.6 + 1.4 * draw[:, 4]
        self._scale = np.where(self._follows, 0.1 + 0.5 * draw[:, 5], 1.0)
        self._noise = _Noise(self._streams)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        noise = self._noise.draw(rows) * self._scale[rows, None]
        offset, speed = _road_offset(observations), _speed(observations)
        follows, pace = self._follows[rows], self._pace[rows]
        # Slow down for what is far to the side, so that corners are taken at all sorts of speeds.
        target = pace * (1 - 0.6 * np.minimum(1.0, np.abs(offset)))
        steer = self._bias[rows] + np.where(follows, self._gain[rows] * offset, 0.0) + 0.5 * noise[:, 0]
        gas = np.where(follows, np.clip(0.05 * (target - speed), 0, 0.8), self._gas[rows]) + 0.3 * noise[:, 1]
        brake = np.where(follows, np.clip(0.03 * (speed - target - 10), 0, 0.6), 0.0) + 0.15 * noise[:, 2] - 0.1
        return _clip(np.stack([steer, gas, brake], axis=1))


def _road_offset(observations: np.ndarray) -> np.ndarray:
    """Where the road ahead lies, (N,): -1 far left, 0 ahead, 1 far right; 0 when no road is seen."""
    ahead = observations[:, 36:62, :, :].astype(np.int16)
    grey = (np.abs(ahead[..., 0] - ahead[..., 1]) < 12) & (np.abs(ahead[..., 1] - ahead[..., 2]) < 12)
    # The car stands at column 48; pixels near the car's line of travel tell more than a far branch of the track.
    columns = np.arange(96) - 47.5
    weight = grey * np.exp(-np.abs(columns) / 30)
    total = weight.sum(axis=(1, 2))
    offset = (weight * columns).sum(axis=(1, 2)) / np.maximum(total, 1e-6) / 14
    return np.asarray(np.where(total > 5, offset, 0.0))


def _speed(observations: np.ndarray) -> np.ndarray:
    """The car's speed, (N,) in the world's units per second, read off the white bar under the picture."""
    bar = observations[:, 84:96, 12:15, :].min(axis=-1) > 150
    return np.asarray(bar.sum(axis=(1, 2)) / 3 * 10.0)
