"""A dream and the real world side by side: both start with the same frame and receive the same actions.

If the task's dreams start later than at the first frame, the agent first plays the real world up to that step.
"""

from typing import Any

import gymnasium
import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.dream.dreams import Dreams
from worldmodels.tasks.base import Observations


class SideBySide:
    """A dream beside the stock environment ``env``; if that is None, a dream alone, from a recorded frame.

    temperature, dropout: of the dream, as for :class:`Dreams`.
    """

    def __init__(
        self, agent: Agent, env: "gymnasium.Env[Any, Any] | None", temperature: float = 1.0, dropout: float = 0.0
    ) -> None:
        self.agent, self.env = agent, env
        self.dreams = Dreams(agent, temperature, dropout=dropout)
        self._controller = agent.controllers(agent.controller[None])

    @torch.inference_mode()
    def reset(self, seed: int) -> None:
        """Start a new episode in both, with the same seed."""
        self.step_number = 0
        self.dream_score = self.real_score = 0.0
        self.dream_over, self.real_over = False, self.env is None
        self._picture: np.ndarray | None = None
        self.dreams.reset([seed])
        if self.env is not None:
            task = self.agent.task
            raw, _ = self.env.reset(seed=seed)
            policy, before = self.agent.policy(1, seeds=[seed]), min(task.start_steps)
            for _ in range(before):
                raw, *_ = self.env.step(policy.act(Observations(task, raw[None]))[0])
            z = self.agent.encode(task.frames(raw[None]))[0]
            self.dreams.move(z, *policy.state, torch.full((1, 1), float(before)))

    @property
    def over(self) -> bool:
        """Whether both have ended."""
        return self.dream_over and self.real_over

    @torch.inference_mode()
    def agent_action(self) -> np.ndarray:
        """The action that the agent chooses from what it sees of the dream, as an action of the real world."""
        control = self.dreams.masked(self._controller(self.dreams.policy_inputs()), self.dreams.z)
        action: np.ndarray = self.agent.task.env_action(control.cpu().numpy())[0]
        return action

    def step(self, action: np.ndarray) -> None:
        """Take an action of the real world in each of the two that has not ended."""
        task = self.agent.task
        self.step_number += 1
        if not self.dream_over:
            taken = torch.from_numpy(task.memory_action(np.asarray(action)[None])).to(self.agent.device)
            reward, ended = self.dreams.step(taken)
            self.dream_score += float(reward[0])
            self.dream_over = bool(ended[0]) or self.step_number >= task.max_steps
        if self.env is not None and not self.real_over:
            _, real_reward, terminated, truncated, _ = self.env.step(action)
            self.real_score += float(real_reward)
            self.real_over = bool(terminated or truncated)

    def dream_frame(self) -> np.ndarray:
        """The dream's frame (64, 64, 3) uint8, decoded by V."""
        frame: np.ndarray = self.agent.decode(self.dreams.z)[0]
        return frame

    def real_picture(self) -> np.ndarray | None:
        """The real world as the environment renders it, (height, width, 3) uint8; None for a dream alone."""
        if self.env is None:
            return None
        picture = np.asarray(self.env.render())
        # A world that is over may be black, as Doom's screen is: its last living picture stays.
        if picture.any() or not self.real_over or self._picture is None:
            self._picture = np.array(picture)
        return self._picture
