"""Dreams for Stable-Baselines3: ``PPO("MlpPolicy", DreamVecEnv(64, agent="car-racing"))``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from worldmodels.core.errors import UserError
from worldmodels.dream.env import DreamVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError:
    raise UserError('training with Stable-Baselines3 needs it installed; pip install "worldmodels[rl]"') from None


class DreamVecEnv(VecEnv):
    """N dreams with the interface of Stable-Baselines3; options are those of :class:`DreamVectorEnv`."""

    def __init__(self, num_envs: int = 64, **options: Any) -> None:
        self.dreams = DreamVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
        self.render_mode = self.dreams.render_mode
        super().__init__(num_envs, self.dreams.single_observation_space, self.dreams.single_action_space)

    def reset(self) -> np.ndarray:
        """The first observations of new dreams, with the seeds given to ``seed`` since the last reset, if any."""
        seeds = [seed for seed in self._seeds if seed is not None]
        observations, _ = self.dreams.reset(seed=seeds if len(seeds) == self.num_envs else None)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Take the stored actions. A row that ends starts a new dream, and its last observation is in its info."""
        observations, rewards, terminated, truncated, info = self.dreams.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated | truncated):
            infos[row] = {
                "terminal_observation": info["final_obs"][row],
                "TimeLimit.truncated": bool(truncated[row]),
            }
        return observations, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Do nothing, because there is nothing to release."""

    def get_images(self) -> Sequence[np.ndarray | None]:
        """The frames of the dreams, each (64, 64, 3) uint8."""
        return list(self.dreams.frames())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the shared environment, repeated for every chosen row."""
        return [getattr(self.dreams, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Raise :class:`UserError`, because all rows share one environment."""
        raise UserError(f"dreams share one environment, so {attr_name} cannot be set for some of them")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the shared environment once; its result is repeated for every chosen row."""
        result = getattr(self.dreams, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for every chosen row."""
        return [False for _ in self._get_indices(indices)]
