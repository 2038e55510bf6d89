"""The search space of C: its weights along principal components of its inputs, instead of each weight by itself.

The mean of h is far from zero, so that a random change of C's weights mostly adds a constant to its controls. In
CarRacing, a few dozen of the 288 directions of the input space hold nearly all of the variance. Relative to the mean
and along the leading components, evolution searches about a hundred parameters instead of 867. C itself remains a
linear map of its inputs.

The components are those of C's inputs, and therefore of the weights of a hidden layer, if C has one. What comes after
it, from a few dozen units within [-1, 1], is searched weight by weight.

At first, mean and components are computed from recorded episodes. To finetune a C that already acts well, they are
computed from episodes that it plays itself, because its inputs there are distributed differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from worldmodels.agent import Agent, AgentPolicy
from worldmodels.controller.layout import Layout
from worldmodels.core.errors import UserError
from worldmodels.data.encode import acting_z
from worldmodels.execution.environments import Environments
from worldmodels.execution.executor import Executor
from worldmodels.memory.latents import Latents
from worldmodels.rollouts import rollout
from worldmodels.tasks.base import Observations

_EPISODES = 64
"""Maximum number of recorded episodes from which the components are computed."""
_EVERY = 4
"""One step in this many is used, because consecutive steps are nearly the same."""
_MOST_INPUTS = 65_536
"""Of long episodes fewer steps are used, so that there are about as many inputs at most."""
_WHITENING = 0.5
"""How far components are scaled to equal variance: 0 leaves them as they are, 1 makes all variances equal."""


@dataclass(frozen=True)
class SearchSpace:
    """Maps points (N, size) to controllers (N, P): ``start`` plus a linear map of the point.

    start: (P,), the controller of the point 0; centre: (F,), the mean of C's inputs; basis: (F, K), their scaled
    components, or (F, K, C), those for each of the controls; controls: C; hidden: hidden units H, 0 for a linear C.
    Like a controller with K inputs, a point consists of C biases and then K rows of C weights; with a hidden layer of H
    biases and K rows of H weights, and then those of the output layer, which are coordinates themselves.
    """

    start: np.ndarray
    centre: np.ndarray
    basis: np.ndarray
    controls: int
    hidden: int = 0

    @property
    def layout(self) -> Layout:
        """What the coordinates of a point are: those of a controller whose inputs are the components."""
        return Layout(int(self.basis.shape[1]), self.controls, self.hidden)

    @property
    def size(self) -> int:
        """Number of coordinates of a point."""
        return self.layout.count

    def controllers(self, points: np.ndarray) -> np.ndarray:
        """Flat parameters (N, P) of the controllers at points (N, size)."""
        outputs, end = self.layout.first_outputs, self.layout.first
        bias, rest, after = points[:, :outputs], points[:, outputs:end], points[:, end:]
        along = rest.reshape(len(points), self.basis.shape[1], outputs)
        weights = np.einsum("fk,nkc->nfc" if self.basis.ndim == 2 else "fkc,nkc->nfc", self.basis, along)
        # The components are relative to the centre: subtracting it from the inputs is a change of the bias.
        shifted = bias - np.einsum("f,nfc->nc", self.centre, weights)
        moved = np.concatenate([shifted, weights.reshape(len(points), outputs * len(self.centre)), after], axis=1)
        return np.asarray(self.start + moved)


def whole_space(start: np.ndarray, controls: int, hidden: int = 0) -> SearchSpace:
    """The search space in which every parameter of C is a coordinate."""
    after = controls * (hidden + 1) if hidden else 0
    features = (len(start) - after) // (hidden or controls) - 1
    return SearchSpace(start, np.zeros(features), np.eye(features), controls, hidden)


def component_space(
    start: np.ndarray,
    controls: int,
    inputs: np.ndarray,
    components: int,
    unbounded: slice = slice(0),
    hidden: int = 0,
) -> SearchSpace:
    """The search space along the leading ``components`` principal components of inputs (n, F) of C.

    They are scaled so that a step of given size changes C's output about as much as in the whole space. unbounded:
    inputs that are scaled to the mean variance of the others, because c is unbounded and would dominate z and h.
    """
    centre = inputs.mean(axis=0, dtype=np.float64)
    input_scales = _input_scales(inputs.var(axis=0, dtype=np.float64), unbounded)
    basis = input_scales[:, None] * _components(inputs * input_scales, components)
    return SearchSpace(start, centre, basis, controls, hidden)


def mirror_space(
    start: np.ndarray,
    signs: Sequence[int],
    inputs: np.ndarray,
    mirrored: np.ndarray,
    components: int,
    unbounded: slice = slice(0),
) -> SearchSpace:
    """The search space of a linear C in a world in which left and right are alike, in the way of its symmetry.

    signs: for each control, -1 if a mirror changes its sign, such as that of steering, and 1 if not; mirrored: (n, F),
    what the inputs (n, F) become in the mirror. Every control gets components of its own: those of the half difference
    of both, which a mirror turns round, for the sign -1, and of the half sum, which it leaves alone, for 1. So no step
    of the search makes the car brake because the road bends to the left. A step changes C's output about as much as in
    the whole space. unbounded: see :func:`component_space`.
    """
    both = np.concatenate([inputs, mirrored]).astype(np.float64)
    centre, variance = both.mean(axis=0), both.var(axis=0)
    input_scales = _input_scales(variance, unbounded)
    total, bases = (variance * input_scales**2).sum(), {}
    for sign in set(signs):
        part = (inputs.astype(np.float64) + sign * mirrored) / 2
        basis = input_scales[:, None] * _components(part * input_scales, components)
        spread = ((both - centre) @ basis).var(axis=0).sum()
        bases[sign] = basis * (np.sqrt(total / spread) if spread > 0 else 1.0)
    return SearchSpace(start, centre, np.stack([bases[sign] for sign in signs], axis=2), len(signs))


def _input_scales(variance: np.ndarray, unbounded: slice) -> np.ndarray:
    """Factors (F,) of the inputs with these variances, by which the unbounded ones vary as much as the others."""
    scales = np.ones(len(variance))
    bounded = np.delete(variance, unbounded)
    if variance[unbounded].sum() > 0 and bounded.sum() > 0:
        scales[unbounded] = np.sqrt(bounded.mean() / variance[unbounded].mean())
    return scales


def _components(sample: np.ndarray, components: int) -> np.ndarray:
    """The leading principal components of a sample (n, F), scaled, (F, K)."""
    covariance = np.cov(sample.astype(np.float64), rowvar=False).reshape(sample.shape[1], -1)
    variances, directions = np.linalg.eigh(covariance)
    count = min(components, sample.shape[1])
    variances, directions = np.maximum(variances[::-1][:count], 1e-9), directions[:, ::-1][:, :count]
    scales = variances ** (-_WHITENING / 2)
    scales *= np.sqrt(variances.sum() / (variances * scales**2).sum())
    return np.asarray(directions * scales)


def with_random_features(space: SearchSpace, inputs: np.ndarray | None, stream: np.random.Generator) -> SearchSpace:
    """The same space, but at its point 0 the hidden units are random functions of C's inputs. The controls stay zero.

    With all weights at zero, a change of one layer would do nothing without a change of the other. inputs: a sample
    (n, F) along which the sums that go into a hidden unit have a mean square of about 1; without it, the mean squares
    of the inputs are taken to be 1.
    """
    layout = space.layout
    if inputs is None:
        square = float(layout.inputs)
    else:
        square = float((((inputs - space.centre) @ space.basis) ** 2).sum(axis=1).mean())
    point = np.zeros(layout.count)
    weights = stream.standard_normal(layout.inputs * layout.hidden)
    point[layout.hidden : layout.first] = weights / np.sqrt(square or 1.0)
    return replace(space, start=space.controllers(point[None])[0])


@torch.inference_mode()
def recorded_inputs(agent: Agent, latents: Latents) -> np.ndarray:
    """The inputs (n, F) float32 of C along recorded episodes; episodes that are too short are a :class:`UserError`."""
    actions_before = latents.lengths.cumsum(0) - latents.lengths
    frames_before = actions_before + torch.arange(len(latents.lengths))
    # Evenly spaced over the recording; the longest first, so that those still running are always the first rows.
    count = len(latents.lengths)
    chosen = torch.from_numpy(np.linspace(0, count - 1, min(_EPISODES, count)).astype(np.int64))
    chosen = chosen[torch.argsort(latents.lengths[chosen], descending=True, stable=True)]
    lengths = latents.lengths[chosen]
    h, c = agent.memory.initial_state(len(chosen))
    every = _every(int(lengths.sum()))
    inputs = []
    for step in range(int(lengths[0])):
        rows = chosen[: int((lengths > step).sum())]
        z = acting_z(latents, frames_before[rows] + step, agent.samples_z, step).to(agent.device)
        h, c = h[: len(rows)], c[: len(rows)]
        if step % every == 0:
            inputs.append(agent.inputs(z, h, c).cpu())
        action = latents.actions[actions_before[rows] + step].to(agent.device)
        h, c = agent.memory.step(z, action, (h, c), torch.full((len(rows),), float(step), device=agent.device))
    sample = torch.cat(inputs).numpy()
    if len(sample) < 2:
        raise UserError("the recorded episodes are too short for components of C's inputs; collect longer ones")
    return sample


def visited_inputs(executor: Executor, agent: Agent, backend: str, seeds: Sequence[int], steps: int) -> np.ndarray:
    """The inputs (n, F) float32 of the agent's C along episodes that it plays in the real world, one per seed."""
    (inputs,) = executor.map([partial(_visit, agent, backend, seeds, steps)])
    return np.concatenate(inputs)


def _visit(
    agent: Agent, backend: str, seeds: Sequence[int], steps: int, environments: Environments
) -> list[np.ndarray]:
    env = environments.of(agent.task, len(seeds), backend)
    recorder = _InputRecorder(agent.policy(len(seeds), seeds=seeds), _every(steps * len(seeds)))
    rollout(agent.task, env, recorder, seeds, steps)
    return recorder.inputs


def _every(steps: int) -> int:
    """One step in how many is used of so many steps."""
    return max(_EVERY, -(-steps // _MOST_INPUTS))


class _InputRecorder:
    """A policy that records the inputs of its C at one step in ``every``."""

    def __init__(self, policy: AgentPolicy, every: int = _EVERY) -> None:
        self._policy, self._every, self._steps = policy, every, 0
        self.inputs: list[np.ndarray] = []

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        action = self._policy.act(observations, rows)
        if self._steps % self._every == 0:
            self.inputs.append(self._policy.inputs.cpu().numpy())
        self._steps += 1
        return action
