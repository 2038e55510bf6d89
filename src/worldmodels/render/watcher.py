"""Watches an agent act in one environment, and makes the moments that are recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from torch import Tensor

from worldmodels.core.device import torch_threads
from worldmodels.render.moment import Moment
from worldmodels.render.stock import visible
from worldmodels.rollouts import Rollouts, rollout
from worldmodels.tasks.base import Observations, playing_of

if TYPE_CHECKING:
    from worldmodels.agent import Agent

_TOGETHER = 24
"""Moments whose pictures V decodes together, which takes a fifth of the time."""


def watch(
    agent: "Agent",
    env: VectorEnv,
    seed: int,
    max_steps: int,
    show: Callable[[Moment], None],
    stride: int = 1,
    stepped: Callable[[float], None] | None = None,
) -> Rollouts:
    """Play one episode and call ``show`` with its moments: T+1 for T steps, the last one without an action.

    Only moments at every ``stride``-th step and the last one are shown, some steps after they happened; ``stepped`` is
    called after every step, with the score.
    """
    watcher = _Watcher(agent, env, seed, show, stride, stepped)
    with torch_threads(1):
        result = rollout(agent.task, env, watcher, [seed], max_steps, observer=watcher)
        watcher.finish()
    return result


@dataclass(frozen=True)
class _Undecoded:
    """A moment whose latents z and expected z (1, Z) are not decoded yet."""

    step: int
    score: float
    world: np.ndarray
    z: Tensor
    expected: Tensor | None
    action: np.ndarray | None


class _Watcher:
    """Makes the moments of a rollout, of which it is both the policy, by the agent, and the observer.

    After the agent has acted at step t, z of frame t and M's prediction of frame t+1 are known; the prediction is kept
    for one step, so that it is shown beside the frame that it predicts.
    """

    def __init__(
        self,
        agent: "Agent",
        env: VectorEnv,
        seed: int,
        show: Callable[[Moment], None],
        stride: int,
        stepped: Callable[[float], None] | None,
    ) -> None:
        self._agent, self._env, self._show, self._stride, self._stepped = agent, env, show, stride, stepped
        self._playing = playing_of(agent.task)
        self._policy = agent.policy(1, seeds=[seed])
        self._policy.reset()
        self._step, self._score = 0, 0.0
        self._expected: Tensor | None = None
        self._last: _Undecoded | None = None
        self._waiting: list[_Undecoded] = []

    def start(self, observations: Observations) -> None:
        self._after = observations

    def step(
        self, rows: np.ndarray, actions: np.ndarray, rewards: np.ndarray, ended: np.ndarray, after: Observations
    ) -> None:
        self._step += 1
        self._score += float(rewards[0])
        self._after = after
        if self._stepped is not None:
            self._stepped(self._score)

    def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
        actions = self._policy.act(observations)
        # Pictures are made only where they are shown, because they take most of the time. Where observations are the
        # pictures, they take none; the last one is needed if the world shows nothing after the end.
        shown = self._step % self._stride == 0
        if shown or not self._renders:
            world = self._picture(observations, actions[0])
            action = self._agent.task.memory_action(actions)[0]
            self._last = _Undecoded(self._step, self._score, world, self._policy.latents, self._expected, action)
            if shown:
                self._add(self._last)
        self._expected = self._policy.expected_latents()
        return actions

    def finish(self) -> None:
        """Show the frame after the last action. The policy encodes it; the action that it chooses is not taken."""
        world = self._picture(self._after, None)
        if not world.any() and self._last is not None:
            # A world that is over may be black, as Doom's screen is: the last living moment stays.
            z, expected, world = self._last.z, self._last.expected, self._last.world
        else:
            self._policy.act(self._after)
            z, expected = self._policy.latents, self._expected
        self._add(_Undecoded(self._step, self._score, world, z, expected, None))
        self._flush()

    def _add(self, moment: _Undecoded) -> None:
        self._waiting.append(moment)
        if len(self._waiting) >= _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        expected = [moment.expected for moment in waiting if moment.expected is not None]
        pictures = iter(self._agent.decode(torch.cat([moment.z for moment in waiting] + expected)))
        seen = [next(pictures) for _ in waiting]
        for moment, frame in zip(waiting, seen, strict=True):
            predicted = None if moment.expected is None else next(pictures)
            self._show(Moment(moment.step, moment.score, moment.world, frame, predicted, moment.action))

    @property
    def _renders(self) -> bool:
        return isinstance(self._env, SyncVectorEnv)

    def _picture(self, observations: Observations, action: np.ndarray | None) -> np.ndarray:
        """The world as people see it: its board, or what it renders, or its observation."""
        board = self._playing.board_picture(self._env, action)
        if board is not None:
            return board
        pictures = cast(tuple[np.ndarray, ...], self._env.render()) if self._renders else observations.raw
        return visible(self._agent.task, np.asarray(pictures[0]))
