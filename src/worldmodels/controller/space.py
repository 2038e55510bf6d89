"""The coordinates in which C is evolved: principal components of what C sees, instead of its features one by one.

h has a large constant part, so that a random change of C's weights is first of all a constant pull at the wheel; and a
few dozen of the 288 directions hold nearly all that varies. Around the mean and along the leading components, evolution
searches a hundred numbers instead of 867. C itself stays what it is: one linear map of [z, h].

Mean and components are those of recorded episodes at first. Where a C that can drive is polished, they are those of
what it meets itself, which by then is something else.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from worldmodels.agent import Agent, AgentPolicy
from worldmodels.errors import UserError
from worldmodels.rollouts import rollout
from worldmodels.storage.latents import Latents
from worldmodels.workers.recover import retrying

_EPISODES = 64
"""Recorded episodes from which the components are found."""
_EVERY = 4
"""One step in so many counts; neighbours are nearly the same."""
_WHITENING = 0.5
"""How far components are brought to the same scale: 0 leaves them as they are, 1 makes small ones as loud as large."""


@dataclass(frozen=True)
class SearchSpace:
    """Points (N, C * (K+1)) stand for controllers (N, C * (F+1)): ``start`` plus a linear map of the point.

    start: (C * (F+1),), where the point 0 is; centre: (F,), the mean of what C sees; basis: (F, K), its scaled
    components; controls: C. A point holds, like a controller, C biases and then K rows of C weights.
    """

    start: np.ndarray
    centre: np.ndarray
    basis: np.ndarray
    controls: int

    @property
    def size(self) -> int:
        """Numbers of a point."""
        return self.controls * (int(self.basis.shape[1]) + 1)

    def controllers(self, points: np.ndarray) -> np.ndarray:
        """Flat parameters (N, P) of the controllers that points (N, size) stand for."""
        bias, rest = points[:, : self.controls], points[:, self.controls :]
        along = rest.reshape(len(points), self.basis.shape[1], self.controls)
        weights = np.einsum("fk,nkc->nfc", self.basis, along)
        # The components count from the centre; the constant that this takes away belongs to the bias.
        shifted = bias - np.einsum("f,nfc->nc", self.centre, weights)
        return np.asarray(self.start + np.concatenate([shifted, weights.reshape(len(points), -1)], axis=1))


def whole_space(start: np.ndarray, controls: int) -> SearchSpace:
    """Every parameter a coordinate of its own."""
    features = len(start) // controls - 1
    return SearchSpace(start, np.zeros(features), np.eye(features), controls)


def component_space(
    start: np.ndarray, controls: int, seen: np.ndarray, components: int, loud: slice = slice(0)
) -> SearchSpace:
    """The leading ``components`` principal components of what C has seen, (n, F) features.

    They are scaled so that a step of given size changes C's output as much as in the whole space. loud: features that
    count as if they varied no more than the others; c, which has no bounds, would else be all that is heard.
    """
    centre = seen.mean(axis=0, dtype=np.float64)
    volume = np.ones(len(centre))
    spread = seen.var(axis=0, dtype=np.float64)
    others = np.delete(spread, loud)
    if spread[loud].sum() > 0 and others.sum() > 0:
        volume[loud] = np.sqrt(others.mean() / spread[loud].mean())
    covariance = np.cov(seen.astype(np.float64) * volume, rowvar=False).reshape(len(centre), -1)
    variances, directions = np.linalg.eigh(covariance)
    count = min(components, len(centre))
    variances, directions = np.maximum(variances[::-1][:count], 1e-9), directions[:, ::-1][:, :count]
    scales = variances ** (-_WHITENING / 2)
    scales *= np.sqrt(variances.sum() / (variances * scales**2).sum())
    return SearchSpace(start, centre, volume[:, None] * directions * scales, controls)


@torch.inference_mode()
def features_along(agent: Agent, latents: Latents) -> np.ndarray:
    """What C would have seen along recorded episodes, (n, F) float32."""
    actions_before = latents.lengths.cumsum(0) - latents.lengths
    frames_before = actions_before + torch.arange(len(latents.lengths))
    # The longest first, so that those still running are always the first rows; spread over all that was recorded.
    count = len(latents.lengths)
    chosen = torch.from_numpy(np.linspace(0, count - 1, min(_EPISODES, count)).astype(np.int64))
    chosen = chosen[torch.argsort(latents.lengths[chosen], descending=True, stable=True)]
    lengths = latents.lengths[chosen]
    h, c = agent.memory.initial_state(len(chosen))
    seen = []
    for step in range(int(lengths[0])):
        rows = chosen[: int((lengths > step).sum())]
        z = latents.mu[frames_before[rows] + step].float().to(agent.device)
        h, c = h[: len(rows)], c[: len(rows)]
        if step % _EVERY == 0:
            known = {"z": z, "h": h, "c": c}
            seen.append(torch.cat([known[name] for name in agent.features], dim=-1).cpu())
        action = latents.actions[actions_before[rows] + step].to(agent.device)
        h, c = agent.memory.step(z, action, (h, c))
    found = torch.cat(seen).numpy()
    if len(found) < 2:
        raise UserError("the recorded episodes are too short to find what C will see; collect longer ones")
    return found


def features_met(agent: Agent, backend: str, seeds: Sequence[int], steps: int) -> np.ndarray:
    """What the agent's own C sees along new episodes in the real world, one per seed, (n, F) float32."""

    def play() -> _Watched:
        watched = _Watched(agent.policy(len(seeds)))
        with contextlib.closing(agent.task.make(len(seeds), backend)) as env:
            rollout(env, watched, seeds, steps)
        return watched

    return np.concatenate(retrying(play).seen)


class _Watched:
    """A policy that keeps what its C saw, one step in so many."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy, self._steps = policy, 0
        self.seen: list[np.ndarray] = []

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        action = self._policy.act(observations, rows)
        if self._steps % _EVERY == 0:
            self.seen.append(self._policy.seen.cpu().numpy())
        self._steps += 1
        return action
