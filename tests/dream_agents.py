"""Small untrained agents that dream, which the tests of dreams, of evolution in them and of playing share."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from worldmodels.agent import Agent
from worldmodels.controller.layout import Layout
from worldmodels.dream.dreams import Dreams
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.dream.fast.streams import Noise
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.tasks import get_task
from worldmodels.vision.conv_vae import ConvVAE

CPU = torch.device("cpu")


def dreamer(task: str = "car-racing", end_bias: float = -4.0, seed: int = 0, hidden: int = 0) -> Agent:
    """A small untrained agent whose dreams last some dozen steps."""
    torch.manual_seed(seed)
    world = get_task(task)
    memory = MDNRNN(6, world.action_size, 16, 3, world.predicts_reward, world.predicts_end)
    assert memory.end_head is not None
    with torch.no_grad():
        memory.end_head.bias.fill_(end_bias)
    size = sum({"z": 6, "h": 16, "c": 16}[name] for name in world.inputs)
    controller = torch.randn(Layout(size, world.control_size, hidden).count) / 2
    return Agent(world, ConvVAE(6), memory, controller, starts=torch.randn(5, 2, 6).half(), hidden=hidden)


def driven(agent: Agent, env: Any, seed: int) -> np.ndarray:
    """What is seen in the real world where its dreams start, the agent having acted until then."""
    observation, _ = env.reset(seed=seed)
    policy = agent.policy(1)
    for _ in range(min(agent.task.start_steps)):
        observation, *_ = env.step(policy.act(observation[None])[0])
    return np.asarray(observation)


def take(streams: Noise, steps: int) -> np.ndarray:
    """The numbers of some steps, (steps, N, 2 Z + 1)."""
    return np.stack([torch.cat([u, n, e[:, None]], 1).numpy() for u, n, e in (streams.next() for _ in range(steps))])


def dream_along(env: DreamVectorEnv, seeds: Sequence[int], steps: int) -> list[tuple[Any, ...]]:
    """Everything that happens under a fixed sequence of actions."""
    observations, _ = env.reset(seed=list(seeds))
    seen: list[tuple[Any, ...]] = [(observations.copy(),)]
    for step in range(steps):
        rng = np.random.default_rng(step)
        action = np.repeat(rng.random((1, 3), dtype=np.float32), env.num_envs, axis=0)
        observations, *rest, _ = env.step(action)
        seen.append((observations.copy(), *(one.copy() for one in rest)))
    return seen


class Noise(gymnasium.Env[Any, Any]):
    """CarRacing's spaces, and the same random pictures in every episode."""

    observation_space = spaces.Box(0, 255, (96, 96, 3), np.uint8)
    action_space = get_task("car-racing").action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._stream = np.random.default_rng(1)
        return self._picture(), {}

    def step(self, action: Any) -> Any:
        return self._picture(), 0.0, False, False, {}

    def _picture(self) -> np.ndarray:
        return self._stream.integers(0, 256, (96, 96, 3), dtype=np.uint8)


def paid_step_by_step(
    agent: Agent, dreams: Dreams, controller: np.ndarray, seeds: Sequence[int], steps: int
) -> np.ndarray:
    """What one controller (P,) earns in each dream until it ends, (len(seeds),), stepping the dreams by hand."""
    alive, paid = np.ones(len(seeds), bool), np.zeros(len(seeds))
    dreams.reset(seeds)
    policy = agent.controllers(torch.from_numpy(controller[None]))
    for _ in range(steps):
        reward, ended = dreams.step(agent.task.dream_action(policy(dreams.policy_inputs())))
        paid += np.where(alive, reward.numpy(), 0)
        alive &= ~ended.numpy()
    return paid
