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
    """N dreams in one batched step, as Stable-Baselines3 wants its environments; options of :class:`DreamVectorEnv`."""

    def __init__(self, num_envs: int = 64, **options: Any) -> None:
        self.dreams = DreamVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **options)
        self.render_mode = self.dreams.render_mode
        super().__init__(num_envs, self.dreams.single_observation_space, self.dreams.single_action_space)

    def reset(self) -> np.ndarray:
        """First observations of new dreams, with the seeds of the last ``seed`` if that came after the last reset."""
        seeds = [one for one in self._seeds if one is not None]
        observations, _ = self.dreams.reset(seed=seeds if len(seeds) == self.num_envs else None)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Note what to do."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Do it; rows that ended have begun anew, and their last observation is in their info."""
        observations, rewards, terminated, truncated, info = self.dreams.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated | truncated):
            infos[row] = {
                "terminal_observation": info["final_obs"][row],
                "TimeLimit.truncated": bool(truncated[row]),
            }
        return observations, rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Nothing is held open."""

    def get_images(self) -> Sequence[np.ndarray | None]:
        """What the dreams look like."""
        return list(self.dreams.frames())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the dreams, once for every chosen row."""
        return [getattr(self.dreams, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Rows share one environment: refused."""
        raise UserError(f"dreams share one environment, so {attr_name} cannot be set for some of them")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """A method of the dreams, its result once for every chosen row."""
        result = getattr(self.dreams, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Never."""
        return [False for _ in self._get_indices(indices)]
