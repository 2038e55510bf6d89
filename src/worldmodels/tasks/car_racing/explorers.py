"""Policies that collect CarRacing's episodes: random actions, noisy road followers, and policies with noise added."""

from collections.abc import Sequence

import numpy as np

from worldmodels.tasks.base import Observations, Policy

_LOW, _HIGH = np.array([-1.0, 0.0, 0.0]), np.ones(3)
"""Bounds of steer, gas and brake."""


def _clip(actions: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(actions, _LOW, _HIGH), dtype=np.float32)


_LAPSES = 0.02
"""Highest probability per frame that a lapse begins."""
_SHORTEST_LAPSE, _LONGEST_LAPSE = 5, 50
"""In frames; 50 are a second."""
_NOISE_KEPT, _NOISE_SD = 0.9, 0.25 / (1 - 0.9**2) ** 0.5
"""Share of the noise that is left a frame later, and its standard deviation, about 0.57."""


class Uniform:
    """Uniformly random actions, drawn anew at every step, with one random stream per environment."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Random actions (n, 3)."""
        actions = [self._streams[row].uniform(_LOW, _HIGH) for row in rows.tolist()]
        return np.array(actions, dtype=np.float32)


class _Noise:
    """Ornstein-Uhlenbeck noise on three controls, one random stream per environment, drawn every ``frames`` frames."""

    def __init__(self, streams: Sequence[np.random.Generator], frames: int) -> None:
        self._streams = streams
        self._kept = _NOISE_KEPT**frames
        self._kick = _NOISE_SD * (1 - self._kept**2) ** 0.5
        self._values = np.zeros((len(streams), 3))

    def draw(self, rows: np.ndarray) -> np.ndarray:
        kicks = np.array([self._streams[row].standard_normal(3) for row in rows.tolist()])
        self._values[rows] = self._kept * self._values[rows] + self._kick * kicks
        return np.array(self._values[rows])


class Perturbed:
    """A policy with Ornstein-Uhlenbeck noise on its actions and with lapses, in which it holds a random action.

    A lapse lasts 5 to 50 frames; an action lasts ``frames`` of them. Without such errors the recorded cars always
    follow the road: M cannot learn whether a car turns because of its steering or because of the road, and dreams of
    cars that follow the road by themselves.
    """

    def __init__(self, policy: Policy, seeds: Sequence[int], frames: int = 1) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._policy, self._noise = policy, _Noise(self._streams, frames)
        draw = np.array([stream.random(2) for stream in self._streams])
        self._scale, self._chance = 0.6 * draw[:, 0], _LAPSES * frames * draw[:, 1]
        self._shortest, self._longest = max(1, _SHORTEST_LAPSE // frames), max(1, _LONGEST_LAPSE // frames)
        self._held = np.zeros((len(seeds), 3))
        self._left = np.zeros(len(seeds), np.int64)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """The policy's actions (n, 3) with noise, or during a lapse the action that is held."""
        actions = self._policy.act(observations, rows) + self._noise.draw(rows) * self._scale[rows, None]
        for row in rows[self._left[rows] == 0].tolist():
            stream = self._streams[row]
            if stream.random() < self._chance[row]:
                self._left[row] = stream.integers(self._shortest, self._longest + 1)
                gas, brake = stream.random() * (stream.random(2) < (0.6, 0.2))
                self._held[row] = 0.5 * stream.standard_normal(), gas, brake
        lapsed = self._left[rows] > 0
        actions[lapsed] = self._held[rows[lapsed]]
        self._left[rows[lapsed]] -= 1
        return _clip(actions)


class Explorer:
    """Ornstein-Uhlenbeck noise on every control, around either a random bias or a crude road follower.

    Random driving leaves the road within seconds; V and M would then learn from little but grass and never from a
    corner at speed. So only a quarter of the episodes drive at random, each with its own steering bias and mean gas.
    The others steer towards grey pixels ahead, each with its own target speed, and record the whole track; the noise
    makes them skid, leave the road and return to it. An action lasts ``frames`` frames.
    """

    def __init__(self, seeds: Sequence[int], frames: int = 1) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        draw = np.array([stream.random(6) for stream in self._streams])
        self._follows = draw[:, 0] < 0.75
        self._gas = np.where(self._follows, 0.0, 0.6 * draw[:, 1])
        self._bias = np.where(self._follows, 0.15, 0.5) * (2 * draw[:, 2] - 1)
        self._pace = 25 + 50 * draw[:, 3]
        self._gain = 0.6 + 1.4 * draw[:, 4]
        self._scale = np.where(self._follows, 0.1 + 0.5 * draw[:, 5], 1.0)
        self._noise = _Noise(self._streams, frames)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        """Actions (n, 3)."""
        noise = self._noise.draw(rows) * self._scale[rows, None]
        offset, speed = _road_offset(observations.raw), _speed(observations.raw)
        follows, pace = self._follows[rows], self._pace[rows]
        # Slow down in corners, where the road lies far to the side; the pace, and so the speed in corners, varies.
        target = pace * (1 - 0.6 * np.minimum(1.0, np.abs(offset)))
        steer = self._bias[rows] + np.where(follows, self._gain[rows] * offset, 0.0) + 0.5 * noise[:, 0]
        gas = np.where(follows, np.clip(0.05 * (target - speed), 0, 0.8), self._gas[rows]) + 0.3 * noise[:, 1]
        brake = np.where(follows, np.clip(0.03 * (speed - target - 10), 0, 0.6), 0.0) + 0.15 * noise[:, 2] - 0.1
        return _clip(np.stack([steer, gas, brake], axis=1))


def _road_offset(observations: np.ndarray) -> np.ndarray:
    """Where the road ahead lies, (N,): about -1 far left, 0 straight ahead or not visible, about 1 far right."""
    ahead = observations[:, 36:62, :, :].astype(np.int16)
    grey = (np.abs(ahead[..., 0] - ahead[..., 1]) < 12) & (np.abs(ahead[..., 1] - ahead[..., 2]) < 12)
    # The car is at column 48; pixels near its line of travel matter more than a distant part of the track.
    columns = np.arange(96) - 47.5
    weight = grey * np.exp(-np.abs(columns) / 30)
    total = weight.sum(axis=(1, 2))
    offset = (weight * columns).sum(axis=(1, 2)) / np.maximum(total, 1e-6) / 14
    return np.asarray(np.where(total > 5, offset, 0.0))


def _speed(observations: np.ndarray) -> np.ndarray:
    """About a third of the car's speed (N,), read off the white bar at the bottom of the screen.

    The bar grows by a pixel with every 20 of the simulator's units per second, and its last pixel may be grey. All
    presets were tuned with explorers who drive by this scale, and so three times as fast as their paces say: they leave
    the road often.
    """
    bar = observations[:, 84:96, 12:15, :].min(axis=-1) > 150
    return np.asarray(bar.sum(axis=(1, 2)) / 3 * 10.0)
