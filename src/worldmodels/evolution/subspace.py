"""The coordinates in which C is evolved: principal components of its inputs, instead of its inputs one by one.

h has a large constant part, so that a random change of C's weights is first of all a constant pull at the wheel; and a
few dozen of the 288 directions hold nearly all that varies. Around the mean and along the leading components, evolution
searches a hundred numbers instead of 867. C itself stays what it is: one linear map of [z, h].

Mean and components are those along recorded episodes at first. Where a C that can act already is finetuned, they are
those along the episodes that it plays itself, which by then look different.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from worldmodels.agent import Agent, AgentPolicy
from worldmodels.core.errors import UserError
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.memory.latents import Latents
from worldmodels.rollouts import rollout
from worldmodels.tasks.base import Observations

_EPISODES = 64
"""Recorded episodes from which the components are found."""
_EVERY = 4
"""One step in so many counts; neighbours are nearly the same."""
_WHITENING = 0.5
"""How far components are brought to the same scale: 0 leaves them as they are, 1 gives all the same variance."""


@dataclass(frozen=True)
class SearchSpace:
    """Points (N, C * (K+1)) stand for controllers (N, C * (F+1)): ``start`` plus a linear map of the point.

    start: (C * (F+1),), where the point 0 is; centre: (F,), the mean of C's inputs; basis: (F, K), its scaled
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
    start: np.ndarray, controls: int, inputs: np.ndarray, components: int, unbounded: slice = slice(0)
) -> SearchSpace:
    """The leading ``components`` principal components of inputs (n, F) of C.

    They are scaled so that a step of given size changes C's output as much as in the whole space. unbounded: inputs
    that are scaled to vary no more than the others; c, which has no bounds, would else outweigh z and h.
    """
    centre = inputs.mean(axis=0, dtype=np.float64)
    volume = np.ones(len(centre))
    spread = inputs.var(axis=0, dtype=np.float64)
    others = np.delete(spread, unbounded)
    if spread[unbounded].sum() > 0 and others.sum() > 0:
        volume[unbounded] = np.sqrt(others.mean() / spread[unbounded].mean())
    covariance = np.cov(inputs.astype(np.float64) * volume, rowvar=False).reshape(len(centre), -1)
    variances, directions = np.linalg.eigh(covariance)
    count = min(components, len(centre))
    variances, directions = np.maximum(variances[::-1][:count], 1e-9), directions[:, ::-1][:, :count]
    scales = variances ** (-_WHITENING / 2)
    scales *= np.sqrt(variances.sum() / (variances * scales**2).sum())
    return SearchSpace(start, centre, volume[:, None] * directions * scales, controls)


@torch.inference_mode()
def recorded_inputs(agent: Agent, latents: Latents) -> np.ndarray:
    """What C would have seen along recorded episodes, (n, F) float32."""
    actions_before = latents.lengths.cumsum(0) - latents.lengths
    frames_before = actions_before + torch.arange(len(latents.lengths))
    # The longest first, so that those still running are always the first rows; spread over all that was recorded.
    count = len(latents.lengths)
    chosen = torch.from_numpy(np.linspace(0, count - 1, min(_EPISODES, count)).astype(np.int64))
    chosen = chosen[torch.argsort(latents.lengths[chosen], descending=True, stable=True)]
    lengths = latents.lengths[chosen]
    h, c = agent.memory.initial_state(len(chosen))
    inputs = []
    for step in range(int(lengths[0])):
        rows = chosen[: int((lengths > step).sum())]
        z = latents.mu[frames_before[rows] + step].float().to(agent.device)
        h, c = h[: len(rows)], c[: len(rows)]
        if step % _EVERY == 0:
            inputs.append(agent.inputs(z, h, c).cpu())
        action = latents.actions[actions_before[rows] + step].to(agent.device)
        h, c = agent.memory.step(z, action, (h, c))
    found = torch.cat(inputs).numpy()
    if len(found) < 2:
        raise UserError("the recorded episodes are too short to find what C will see; collect longer ones")
    return found


def visited_inputs(executor: Executor, agent: Agent, backend: str, seeds: Sequence[int], steps: int) -> np.ndarray:
    """What the agent's own C sees along new episodes in the real world, one per seed, (n, F) float32."""

    (inputs,) = executor.map([partial(_visit, agent, backend, seeds, steps)])
    return np.concatenate(inputs)


def _visit(
    agent: Agent, backend: str, seeds: Sequence[int], steps: int, environments: Environments
) -> list[np.ndarray]:
    env, recorder = environments.of(agent.task, len(seeds), backend), _InputRecorder(agent.policy(len(seeds)))
    rollout(agent.task, env, recorder, seeds, steps)
    return recorder.inputs


class _InputRecorder:
    """A policy that keeps what its C saw, one step in so many."""

    def __init__(self, policy: AgentPolicy) -> None:
        self._policy, self._steps = policy, 0
        self.inputs: list[np.ndarray] = []

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        action = self._policy.act(observations, rows)
        if self._steps % _EVERY == 0:
            self.inputs.append(self._policy.inputs.cpu().numpy())
        self._steps += 1
        return action
