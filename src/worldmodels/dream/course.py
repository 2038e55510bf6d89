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
    dream, which may have started in the middle of one, for Ms with a clock.
    """

    mask: Tensor
    steps: Tensor


class Courses:
    """Begins the courses of the dreams of one agent.

    agents: the agent and, if there is one, its dream model; dropout: as in :class:`DreamConfig`.
    """

    def __init__(self, agents: Sequence[Agent], dropout: float) -> None:
        if not 0 <= dropout < 1:
            raise UserError(f"expected a dropout from 0 to below 1, got {dropout:g}; 0 means none")
        memory = agents[-1].memory
        self._dropout = float(dropout)
        self._size = memory.latent_size + memory.hidden_size
        self._steps = _start_steps(agents[0]) if any(agent.memory.clock for agent in agents) else None

    def begin(self, streams: Noise, which: Tensor, rows: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """The courses of new dreams that start at the recorded moments ``which`` (n,); empty if dreams have none.

        rows: of the streams, for which the dreams are (None: all).
        """
        if not self._dropout and self._steps is None:
            return ()
        nothing = torch.zeros(len(which), 0, device=which.device)
        return Course(
            dropout_mask(streams.dropout(self._size, rows), self._dropout) if self._dropout else nothing,
            nothing if self._steps is None else self._steps[which],
        )

    @staticmethod
    def after(course: Course) -> Course:
        """The courses of dreams one step later."""
        return course._replace(steps=course.steps + 1)


def _start_steps(agent: Agent) -> Tensor:
    """The steps (S, 1) behind the moments at which the agent's dreams start."""
    assert agent.starts is not None
    steps = agent.moments.steps
    behind = torch.zeros(len(agent.starts)) if steps is None else steps.float()
    return behind.unsqueeze(1).to(agent.device)
