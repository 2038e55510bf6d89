"""Measuring controllers in dreams, all of them at once: what evolution does there, thousands of times faster."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldmodels import interrupt
from worldmodels.agent import Agent
from worldmodels.dream.dreams import Dreams

_ROWS = 2048
"""Dreams advanced together on a CPU; their state then stays in its caches."""
_FULL = 0.75
"""Rows that have ended are dropped when fewer than this share goes on."""
_ALL_AT_ONCE = 192
"""Controls of all candidates together up to which they are computed for every row, instead of each row's alone."""


class DreamReturns:
    """``measure(controllers (P, size), seeds (E,), steps, patience) -> (returns (P, E), steps)`` in dreams.

    Every controller dreams every seed; patience has no meaning here, since M's reward is never exactly zero.
    """

    def __init__(self, agent: Agent, temperature: float, ends: str) -> None:
        self._agent = agent
        self._dreams = Dreams(agent, temperature, ends)

    @torch.inference_mode()
    def __call__(
        self, controllers: np.ndarray, seeds: Sequence[int], steps: int, patience: int | None = None
    ) -> tuple[np.ndarray, int]:
        """Returns (P, E) and how many steps were dreamt."""
        device = self._agent.device
        rows = _ROWS if device.type == "cpu" else len(controllers) * len(seeds)
        together = max(1, rows // len(seeds))
        parts, done = [], 0
        for start in range(0, len(controllers), together):
            returns, dreamt = self._part(controllers[start : start + together], seeds, steps)
            parts.append(returns)
            done += dreamt
        return np.concatenate(parts), done

    def _part(self, controllers: np.ndarray, seeds: Sequence[int], steps: int) -> tuple[np.ndarray, int]:
        dreams, count = self._dreams, len(controllers)
        policy = _Candidates(torch.from_numpy(controllers.astype(np.float32)).to(self._agent.device), self._agent)
        dreams.reset(list(seeds) * count, shared=True)
        candidate = torch.arange(count, device=dreams.z.device).repeat_interleave(len(seeds))
        place = torch.arange(len(dreams), device=dreams.z.device)
        returns = torch.zeros(len(dreams), device=dreams.z.device)
        alive = torch.ones(len(dreams), dtype=torch.bool, device=dreams.z.device)
        done = 0
        for _ in range(steps):
            interrupt.check()
            control = dreams.only_allowed(policy.act(dreams.features(), candidate))
            actions = self._agent.task.dream_action(control)
            reward, ended = dreams.step(actions)
            returns.index_add_(0, place, reward * alive)
            left = int(alive.sum())
            done += left
            alive &= ~ended
            left = int(alive.sum())
            if left == 0:
                break
            if left < _FULL * len(alive):
                rows = alive.nonzero().squeeze(1)
                dreams.keep(rows)
                candidate, place, alive = candidate[rows], place[rows], alive[rows]
        return returns.view(count, len(seeds)).double().cpu().numpy(), done


class _Candidates:
    """P controllers acting on rows that each belong to one of them."""

    def __init__(self, parameters: Tensor, agent: Agent) -> None:
        self._controls = agent.task.control_size
        self._bias = parameters[:, : self._controls]
        weights = parameters[:, self._controls :].view(len(parameters), -1, self._controls)
        self._weights, self._count = weights, len(parameters)
        # One product for every row with every candidate is cheap while they are few; then each row takes its own.
        self._side_by_side = weights.permute(1, 0, 2).reshape(weights.shape[1], -1).contiguous()

    def act(self, features: Tensor, candidate: Tensor) -> Tensor:
        """Controls (n, C) in [-1, 1] for features (n, F) of rows that belong to ``candidate`` (n,)."""
        if self._count * self._controls <= _ALL_AT_ONCE:
            every = (features @ self._side_by_side).view(len(features), self._count, self._controls)
            own = every[torch.arange(len(features), device=features.device), candidate]
        else:
            own = torch.bmm(features.unsqueeze(1), self._weights[candidate]).squeeze(1)
        return torch.tanh(own + self._bias[candidate])
