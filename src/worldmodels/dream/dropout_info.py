"""What an agent remembers of the dropout with which its M was trained and its C was evolved in dreams."""

from typing import Any

from worldmodels.agent import Agent
from worldmodels.core.events import say

_MEMORY, _DREAM = "memory_dropout", "dream_dropout"


def dropout_info(memory: float, dream: float) -> dict[str, float]:
    """The notes of an agent's info: the rates of memory.dropout and dream.dropout.

    A rate of 0 is left out, so that agents without dropout have files as before.
    """
    return {name: rate for name, rate in ((_MEMORY, memory), (_DREAM, dream)) if rate}


def note_dropout(agent: Agent, rate: float | None) -> None:
    """Say in one line if dreams get a dropout with a ``rate`` for which the agent's M was not trained."""
    if rate and not _positive(agent.info.get(_MEMORY)):
        say(
            f"note: this agent's M was trained without memory.dropout; with a dropout of {rate:g} its dreams are worse "
            "than M can dream, and not only different"
        )


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0
