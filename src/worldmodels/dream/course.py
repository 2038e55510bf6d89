"""What dreams have beside z and M's state, each only where the settings ask for it.

Legend: N dreams, Z latent, H hidden.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.core.errors import UserError
from worldmodels.dream.fast.streams import Noise
from worldmodels.memory.dropout import dropout_mask


class Course(NamedTuple):
    """mask: the dropout mask (N, Z+H) of the M that dreams, (N, 0) without dropout; all float32."""

    mask: Tensor


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

    def begin(self, streams: Noise, which: Tensor, rows: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """The courses of new dreams that start at the recorded moments ``which`` (n,); empty if dreams have none.

        rows: of the streams, for which the dreams are (None: all).
        """
        if not self._dropout:
            return ()
        return (dropout_mask(streams.dropout(self._size, rows), self._dropout),)
