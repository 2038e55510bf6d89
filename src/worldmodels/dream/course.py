"""What dreams have beside z and M's state, each only where the settings ask for it.

Legend: N dreams, Z latent, H hidden.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.dream.fast.streams import Noise
from worldmodels.memory.dropout import dropout_mask


class Course(NamedTuple):
    """What dreams have of their own, float32 tensors (N, 0) for what they do not need.

    mask: (N, Z+H), the dropout mask of the M that dreams; steps: (N, 1), how many steps of its episode are behind a
    dream, which may have started in the middle of one, for Ms with a clock; health: (N, 1), for dreams that end by it.
    """

    mask: Tensor
    steps: Tensor
    health: Tensor


class Courses:
    """Begins the courses of the dreams of one agent.

    agents: the agent and, if there is one, its dream model; dropout: as in :class:`DreamConfig`; mortal: whether dreams
    have a health.
    """

    def __init__(self, agents: Sequence[Agent], dropout: float, mortal: bool) -> None:
        if not 0 <= dropout < 1:
            raise UserError(f"expected a dropout from 0 to below 1, got {dropout:g}; 0 means none")
        memory = agents[-1].memory
        self._dropout = float(dropout)
        self._size = memory.latent_size + memory.hidden_size
        self._steps = _start_steps(agents[0]) if any(agent.memory.clock for agent in agents) else None
        self._health: Tensor | None = None
        self._drops: Tensor | None = None
        if mortal:
            self._health, self._drops = _start_health(agents[0])

    def begin(self, streams: Noise, which: Tensor, rows: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """The courses of new dreams that start at the recorded moments ``which`` (n,); empty if dreams have none.

        rows: of the streams, for which the dreams are (None: all).
        """
        if not self._dropout and self._steps is None and self._health is None:
            return ()
        nothing = torch.zeros(len(which), 0, device=which.device)
        return Course(
            dropout_mask(streams.dropout(self._size, rows), self._dropout) if self._dropout else nothing,
            nothing if self._steps is None else self._steps[which],
            nothing if self._health is None else self._health[which],
        )

    def after(self, course: Course, hit_logit: Tensor | None, chance: Tensor) -> Course:
        """The courses of dreams one step later.

        hit_logit: (N,), of the probability of a hit; chance: (N,), uniform in [0, 1). A dream is hit where the chance
        is below that probability, and loses what one of the recorded hits took.
        """
        steps = course.steps + 1
        if self._drops is None:
            return course._replace(steps=steps)
        assert hit_logit is not None
        probability = torch.sigmoid(hit_logit)
        # Where there is a hit, their quotient is uniform in [0, 1), too, and chooses the drop.
        place = (chance / probability.clamp(min=1e-9)).clamp(max=1.0) * len(self._drops)
        drop = self._drops[place.long().clamp(max=len(self._drops) - 1)]
        lost = torch.where(chance < probability, drop, torch.zeros_like(drop))
        return course._replace(steps=steps, health=course.health - lost.unsqueeze(1))


def _start_steps(agent: Agent) -> Tensor:
    """The steps (S, 1) behind the moments at which the agent's dreams start."""
    assert agent.starts is not None
    steps = agent.moments.steps
    behind = torch.zeros(len(agent.starts)) if steps is None else steps.float()
    return behind.unsqueeze(1).to(agent.device)


def _start_health(agent: Agent) -> tuple[Tensor, Tensor]:
    """The health (S, 1) at the moments at which the agent's dreams start, and what hits take, (D,)."""
    health, drops = agent.moments.health, agent.moments.drops
    assert health is not None and drops is not None
    return health.float().unsqueeze(1).to(agent.device), drops.float().to(agent.device)
