"""One dream and the real world side by side: both begin with the same frame and live through the same actions.

In worlds whose dreams begin later than with the first frame, the agent acts in the real world until then.
"""

from typing import Any

import gymnasium
import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.controller.policy import Controllers, parameter_count
from worldmodels.dream.dreams import Dreams


class Beside:
    """A dream beside the stock environment ``env``; None: a dream alone, from a recorded frame."""

    def __init__(self, agent: Agent, env: "gymnasium.Env[Any, Any] | None", temperature: float = 1.0) -> None:
        self.agent, self.env = agent, env
        self.dreams = Dreams(agent, temperature)
        features = len(agent.controller) // agent.task.control_size - 1
        assert parameter_count(features, agent.task.control_size) == len(agent.controller)
        parameters = agent.controller[None].to(agent.device)
        self._controller = Controllers(parameters, features, agent.task.control_size)

    @torch.inference_mode()
    def reset(self, seed: int) -> None:
        """Begin again."""
        self.step_number = 0
        self.dream_score = self.real_score = 0.0
        self.dream_over, self.real_over = False, self.env is None
        self.dreams.reset([seed])
        if self.env is not None:
            self.observation, _ = self.env.reset(seed=seed)
            policy = self.agent.policy(1)
            for _ in range(min(self.agent.task.dream_begins)):
                self.observation, *_ = self.env.step(policy.act(self.observation[None])[0])
            self.dreams.z = self.agent.encode(self.agent.task.frames(self.observation[None]))[0]
            self.dreams.h, self.dreams.c = policy.state

    @property
    def over(self) -> bool:
        """Whether both have ended."""
        return self.dream_over and self.real_over

    @torch.inference_mode()
    def agent_action(self) -> np.ndarray:
        """What the agent, who sees the dream, would do; an action of the real world."""
        control = self.dreams.only_allowed(self._controller(self.dreams.features()), self.dreams.z)
        action: np.ndarray = self.agent.task.env_action(control.cpu().numpy())[0]
        return action

    def step(self, action: np.ndarray) -> None:
        """Act in both, as long as they last."""
        task = self.agent.task
        self.step_number += 1
        if not self.dream_over:
            taken = torch.from_numpy(task.memory_action(np.asarray(action)[None])).to(self.agent.device)
            reward, ended = self.dreams.step(taken)
            self.dream_score += float(reward[0])
            self.dream_over = bool(ended[0]) or self.step_number >= task.max_steps
        if self.env is not None and not self.real_over:
            self.observation, got, terminated, truncated, _ = self.env.step(action)
            self.real_score += float(got)
            self.real_over = bool(terminated or truncated)

    def dream_frame(self) -> np.ndarray:
        """What the dream looks like, (64, 64, 3) uint8."""
        frame: np.ndarray = self.agent.decode(self.dreams.z)[0]
        return frame

    def real_picture(self) -> np.ndarray | None:
        """The real world as it draws itself for people, if there is one."""
        return None if self.env is None else np.asarray(self.env.render())
