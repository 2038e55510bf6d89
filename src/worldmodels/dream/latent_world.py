"""The real world with the observations of a dream, so that a policy trained in dreams can act in it unchanged."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from worldmodels.agent import Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.tasks.base import Observations
from worldmodels.vision.samples import ActingSamples


class LatentWorld(gymnasium.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """A stock environment whose observations (F,) float32 are the inputs of C: z and h, for Doom also c.

    env: the agent's world as Gymnasium makes it, with its own observations and actions (other observations are a
    :class:`UserError`); agent: an :class:`Agent`, a shipped agent's name, or a path. The spaces are those of a single
    environment in :class:`DreamVectorEnv` with latent observations.
    """

    def __init__(self, env: "gymnasium.Env[Any, Any]", agent: "Agent | str") -> None:
        super().__init__(env)
        self.agent = agent if isinstance(agent, Agent) else load_agent(agent)
        wanted = self.agent.task.observation_shape
        if env.observation_space.shape != wanted:
            raise UserError(
                f"expected the stock environment of {self.agent.task.name} with observations {wanted}, "
                f"got {env.observation_space.shape}; leave out wrappers that change them"
            )
        self._episodes = 0
        self.observation_space = spaces.Box(-np.inf, np.inf, (self.agent.inputs.size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observation of a new episode, with a zero state of M."""
        observation, info = self.env.reset(seed=seed, options=options)
        chosen = self._episodes if seed is None else seed
        self._samples = ActingSamples(1, [chosen]) if self.agent.samples_z else None
        self._episodes += 1
        self._state, self._steps = self.agent.memory.initial_state(1), torch.zeros(1, device=self.agent.device)
        return self._observe(observation), info

    @torch.inference_mode()
    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the real world, and advance M's state."""
        taken = torch.from_numpy(self.agent.task.memory_action(np.asarray(action)[None])).to(self.agent.device)
        self._state = self.agent.memory.step(self._z, taken, self._state, self._steps)
        self._steps = self._steps + 1
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), float(reward), terminated, truncated, info

    @torch.inference_mode()
    def _observe(self, observation: np.ndarray) -> np.ndarray:
        self._z, logvar = self.agent.encode(Observations(self.agent.task, observation[None]).frames)
        if self._samples is not None:
            self._z = self._samples.draw(self._z, logvar, None)
        inputs: np.ndarray = self.agent.inputs(self._z, *self._state)[0].cpu().numpy()
        return inputs
