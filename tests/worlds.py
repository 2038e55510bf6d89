"""A scripted world whose frames say which episode and which step they show, so that any misalignment is seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.data.collect import record_episodes
from worldmodels.data.episodes import Episode
from worldmodels.execution.executor import LocalExecutor
from worldmodels.execution.recover import WorkerDied
from worldmodels.tasks import Task
from worldmodels.tasks.base import ArrayWorld, Observations, Policy, World

MAX_STEPS = 10


def length_of(seed: int) -> int:
    """Actions of the episode with this seed: 2 to 8."""
    return 2 + seed % 7


def ends_by_itself(seed: int) -> bool:
    """Even seeds terminate, odd ones are truncated."""
    return seed % 2 == 0


def action_at(seed: int, step: int) -> np.ndarray:
    """What :class:`Diarist` does at that step; exact in float32."""
    return np.array([step / 64, seed / 256], np.float32)


def reward_at(seed: int, step: int) -> float:
    """What the world pays for :func:`action_at`; exact in float32."""
    return seed + step / 8 + step / 64


class ScriptedEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Sees (seed, steps made, 64 * last action[0]); pays seed + step / 8 + action[0]."""

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, num_envs: int, dies: bool = False) -> None:
        self.num_envs, self._dies = num_envs, dies
        self.single_observation_space = spaces.Box(0, 255, (3,), np.uint8)
        self.single_action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        assert isinstance(seed, Sequence) and len(seed) == self.num_envs
        self._seeds = [one for one in seed if one is not None]
        self._seen = np.array([(one, 0, 0) for one in self._seeds], np.uint8)
        self._alive = np.ones(self.num_envs, bool)
        self.simulated = 0
        return self._seen, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert actions.shape == (self.num_envs, 2) and self._alive.any()
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for row in np.flatnonzero(self._alive):
            step, seed = int(self._seen[row, 1]), self._seeds[row]
            if self._dies and step == 1:
                raise WorkerDied("worker 1 of 1 was killed")
            rewards[row] = seed + step / 8 + float(actions[row, 0])
            self._seen[row] = seed, step + 1, round(64 * float(actions[row, 0]))
            over = step + 1 >= length_of(seed)
            terminated[row], truncated[row] = over and ends_by_itself(seed), over and not ends_by_itself(seed)
        self.simulated += int(self._alive.sum())
        self._alive &= ~(terminated | truncated)
        return self._seen, rewards, terminated, truncated, {}

    def retire(self, rows: np.ndarray) -> None:
        self._alive[rows] = False


class Diarist:
    """Writes the step and the episode that it sees into its action."""

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        assert len(observations) == len(rows)
        return np.stack([action_at(int(seen[0]), int(seen[1])) for seen in observations.raw])


class Scripted(Task):
    """The scripted world; ``deaths``: how many of the first environments lose a worker."""

    name = "scripted"
    title = "Scripted"
    observation_shape = (3,)
    action_size = 2
    control_size = 2
    max_steps = MAX_STEPS
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    reference_backend = "slow"

    def __init__(self, deaths: int = 0) -> None:
        self.made: list[tuple[int, str]] = []
        self._deaths = deaths

    @property
    def worlds(self) -> Mapping[str, World]:
        """Two backends that differ in nothing but their names."""
        return {name: ArrayWorld(lambda num_envs, name=name: self._make(num_envs, name)) for name in ("fast", "slow")}

    def _make(self, num_envs: int, backend: str) -> VectorEnv:
        self.made.append((num_envs, backend))
        return ScriptedEnv(num_envs, dies=len(self.made) <= self._deaths)

    def frames(self, observations: np.ndarray) -> np.ndarray:
        """Every pixel is the observation."""
        return np.ascontiguousarray(np.broadcast_to(observations[:, None, None], (len(observations), 64, 64, 3)))

    def env_action(self, control: np.ndarray) -> np.ndarray:
        return control / 2

    def memory_action(self, actions: np.ndarray) -> np.ndarray:
        """Doubled, so that a forgotten codec shows."""
        return 2 * np.asarray(actions, np.float32)

    def exploration(self, seeds: Sequence[int]) -> Policy:
        return Diarist()

    def perturbed(self, policy: Policy, seeds: Sequence[int]) -> Policy:
        return policy

    def random_policy(self, seeds: Sequence[int]) -> Policy:
        return Diarist()


class Goals(Scripted):
    """The scripted world with a goal: what it ended is finished if 4 divides the whole part of its last reward."""

    goal = "finished games"

    def episode_facts(
        self, returns: np.ndarray, lengths: np.ndarray, terminated: np.ndarray, last_rewards: np.ndarray
    ) -> Mapping[str, np.ndarray]:
        return {"finished": terminated & (last_rewards.astype(int) % 4 == 0), "last": last_rewards}


def scripted_episodes(seeds: Sequence[int]) -> list[Episode]:
    """Episodes of the scripted world as the collect stage records them."""
    return record_episodes(LocalExecutor(), Scripted(), "fast", lambda _: Diarist(), list(seeds), MAX_STEPS)
