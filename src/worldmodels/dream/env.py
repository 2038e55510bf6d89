"""The dream as Gymnasium environments.

``gymnasium.make_vec("worldmodels.dream.env:worldmodels/Dream-v0", num_envs=64, agent="car-racing")``: the part before
the colon is the module that registers them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldmodels.agent import Agent, load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import row_seeds
from worldmodels.dream.dreams import Dreams
from worldmodels.tasks.base import Playing

_TOLERANCE = 1e-5
OBSERVATIONS = ("latent", "frame")
"""What is observed: "latent", the inputs of C (z and h, for Doom also c), or "frame", the frame decoded by V."""


class DreamVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N dreams of one agent, advanced in one batched step.

    agent: a shipped agent's name, a path, or an :class:`Agent`; temperature: see the paper, section 4.2; termination:
    "sample" (an end is drawn from its predicted probability), "threshold" (the dream ends where the output of the end
    head exceeds 0.5) or "health" (hits take health until none is left); dropout: share of z and h that M does not see,
    by a mask that each dream draws and keeps; max_steps: dreams are truncated after so many steps (None: the task's
    limit); observation: "latent" (N, F) float32 or "frame" (N, 64, 64, 3) uint8; dtype: of matrix products (None: the
    fastest). Invalid options are a :class:`UserError`.

    Actions are those of the real world. A row that has ended keeps its state, with reward 0, until it is reset
    (``options={"reset_mask": mask}`` resets the rows in the mask). With autoreset_mode SAME_STEP, a new dream starts in
    the same step, and the last observation of the old one is in ``info["final_obs"]``. Every row has its own seed, and
    its dream does not depend on the other rows. If the task has action masks, ``info["action_mask"]`` (N, C) bool holds
    the actions that are valid in the dream; M imagines the outcome of invalid actions too.
    """

    def __init__(
        self,
        num_envs: int = 1,
        agent: "Agent | str | Path" = "car-racing",
        temperature: float = 1.0,
        termination: str = "sample",
        max_steps: int | None = None,
        observation: str = "latent",
        device: str = "cpu",
        autoreset_mode: AutoresetMode = AutoresetMode.DISABLED,
        render_mode: str | None = None,
        dtype: torch.dtype | None = None,
        dropout: float = 0.0,
    ) -> None:
        if num_envs < 1:
            raise UserError(f"expected at least 1 dream, got {num_envs}")
        if observation not in OBSERVATIONS:
            raise UserError(f"unknown observation {observation!r}; choose from {', '.join(OBSERVATIONS)}")
        if max_steps is not None and max_steps < 1:
            raise UserError(f"expected max_steps of at least 1, got {max_steps}")
        if autoreset_mode not in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP):
            raise UserError(f"expected autoreset_mode DISABLED or SAME_STEP, got {autoreset_mode}")
        self.agent = agent if isinstance(agent, Agent) else load_agent(agent, device)
        self.num_envs, self.render_mode = num_envs, render_mode
        playing = self.agent.task.playing
        rate = Playing.frames_per_second if playing is None else playing.frames_per_second
        self.metadata = {"autoreset_mode": autoreset_mode, "render_modes": ["rgb_array"], "render_fps": rate}
        self._mode, self._observation = autoreset_mode, observation
        self._limit = max_steps or self.agent.task.max_steps
        self._dreams = Dreams(self.agent, temperature, termination, dtype, dropout=dropout)
        if observation == "frame":
            self.single_observation_space: spaces.Space[Any] = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        else:
            self.single_observation_space = spaces.Box(-np.inf, np.inf, (self.agent.inputs.size,), np.float32)
        self.single_action_space = self.agent.task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._alive = np.zeros(num_envs, dtype=bool)
        self._seeds = np.random.SeedSequence()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observations of new dreams, and their info; ``seed`` holds one seed per row, or is one for all."""
        mask = (options or {}).get("reset_mask")
        if mask is not None and self._lengths_known():
            self._restart(np.flatnonzero(mask), row_seeds(seed, self.num_envs) if seed is not None else None)
        else:
            seeds = row_seeds(seed, self.num_envs) if seed is not None else self._fresh_seeds(self.num_envs)
            if seed is not None:
                self._seeds = np.random.SeedSequence(seeds)
            self._dreams.reset(seeds)
            self._lengths = np.zeros(self.num_envs, dtype=np.int64)
            self._alive[:] = True
        return self._observe(), self._masks()

    def _masks(self) -> dict[str, Any]:
        mask = self._dreams.action_mask(self._dreams.z)
        return {} if mask is None else {"action_mask": mask.cpu().numpy()}

    def _lengths_known(self) -> bool:
        return hasattr(self, "_lengths")

    def _fresh_seeds(self, count: int) -> list[int]:
        return [int(word) >> 1 for word in self._seeds.spawn(1)[0].generate_state(count)]

    def _restart(self, rows: np.ndarray, seeds: Sequence[int] | None) -> None:
        """Start new dreams in ``rows`` (n,)."""
        if not len(rows):
            return
        chosen = self._fresh_seeds(len(rows)) if seeds is None else [seeds[row] for row in rows.tolist()]
        self._dreams.restart(torch.from_numpy(rows), chosen)
        self._lengths[rows] = 0
        self._alive[rows] = True

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the rows that have not ended; ``actions`` (N, ...) are those of the real world.

        Raises :class:`UserError` for actions of another shape or type than those of ``action_space``, for NaN, and for
        values out of its bounds.
        """
        if not self._lengths_known():
            raise UserError("expected reset before step: no dream has begun")
        alive = self._alive.copy()
        taken = self.agent.task.memory_action(self._checked(actions))
        reward, ended = self._dreams.step(
            torch.from_numpy(taken).to(self.agent.device), frozen=torch.from_numpy(~alive).to(self.agent.device)
        )
        self._lengths[alive] += 1
        rewards = np.where(alive, reward.double().cpu().numpy(), 0.0)
        terminated = ended.cpu().numpy() & alive
        truncated = alive & ~terminated & (self._lengths >= self._limit)
        self._alive &= ~(terminated | truncated)
        info: dict[str, Any] = {}
        over = terminated | truncated
        if self._mode == AutoresetMode.SAME_STEP and over.any():
            final = np.full(self.num_envs, None, dtype=object)
            last = self._observe()
            for row in np.flatnonzero(over):
                final[row] = last[row]
            info = {"final_obs": final, "_final_obs": over}
            self._restart(np.flatnonzero(over), None)
        return self._observe(), rewards, terminated, truncated, info | self._masks()

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        actions, space = np.asarray(actions), self.action_space
        kinds = "fiu" if isinstance(self.single_action_space, spaces.Box) else "iu"
        if actions.shape != space.shape or actions.dtype.kind not in kinds:
            wanted = "whole numbers" if kinds == "iu" else "numbers"
            raise UserError(
                f"expected actions as {wanted} of shape {space.shape}, one per dream, got {actions.shape} "
                f"{actions.dtype}"
            )
        low, high = _bounds(self.single_action_space)
        # A little tolerance, because bounds are float32 and actions may be computed with another precision.
        inside = (actions >= low - _TOLERANCE) & (actions <= high + _TOLERANCE)  # False for NaN
        if not inside.all():
            wrong = actions[~inside].flat[0]
            shown = np.asarray([low, high]).tolist()
            raise UserError(f"expected finite actions from {shown[0]} to {shown[1]}, got {wrong}")
        return actions

    def _observe(self) -> np.ndarray:
        if self._observation == "frame":
            return self.frames()
        return self._dreams.policy_inputs().cpu().numpy()

    def frames(self) -> np.ndarray:
        """The frames (N, 64, 64, 3) uint8 of all dreams, decoded by V."""
        return self.agent.decode(self._dreams.z)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The frames, one per dream, if the render_mode is rgb_array, else None."""
        return tuple(self.frames()) if self.render_mode == "rgb_array" else None


def _bounds(space: spaces.Space[Any]) -> tuple[Any, Any]:
    """The lowest and the highest action."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    assert isinstance(space, spaces.Box)
    return space.low, space.high


class DreamEnv(gymnasium.Env[np.ndarray, Any]):
    """One dream, for code that expects a single environment; options as in :class:`DreamVectorEnv`."""

    # Before a dream is made, the usual rate, because gymnasium.make reads it from the class.
    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": Playing.frames_per_second,
    }

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self._dreams = DreamVectorEnv(1, render_mode=render_mode, **options)
        self.metadata = {**self.metadata, "render_fps": self._dreams.metadata["render_fps"]}
        self.render_mode = render_mode
        self.observation_space = self._dreams.single_observation_space
        self.action_space = self._dreams.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observation of a new dream, and its info."""
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(1 << 31)) if seed is None else seed
        observations, info = self._dreams.reset(seed=[chosen])
        return observations[0], _first(info)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step; after the end the dream must be reset."""
        observations, rewards, terminated, truncated, info = self._dreams.step(np.asarray(action)[None])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(info)

    def render(self) -> Any:
        """The frame (64, 64, 3) uint8 that V decodes, if the render_mode is rgb_array, else None."""
        frames = self._dreams.render()
        return None if frames is None else frames[0]


def _first(info: dict[str, Any]) -> dict[str, Any]:
    """The info of a single dream, from the info of a batch of one."""
    return {name: value[0] for name, value in info.items()}


gymnasium.register(
    id="worldmodels/Dream-v0",
    entry_point="worldmodels.dream.env:DreamEnv",
    vector_entry_point="worldmodels.dream.env:DreamVectorEnv",
)
