"""Seeds of episodes and random streams: they depend on the work alone, and training never uses those of evaluation."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from worldmodels.core.errors import UserError

_PURPOSES = {
    "collect": 1,
    "fitness": 2,
    "validation": 3,
    "evaluation": 4,
    "play": 5,
    "report": 6,
    "probe": 7,
    "visited": 8,
    "reevaluation": 9,
}
_EVALUATION_FLOOR = 1 << 30


class Stream(IntEnum):
    """A number for each use of random numbers outside the environments, so that no two uses share a random stream."""

    FRAME_WINDOWS = 11
    FRAME_ORDER = 12
    VISION_NOISE = 13
    VISION_PRIOR = 14
    SEQUENCES = 21
    MEMORY_NOISE = 22
    BURN_IN_NOISE = 23
    MEMORY_DROPOUT = 24
    HELD_OUT = 25
    CMA = 31
    PEPG = 32
    OPENAI_ES = 33
    GA = 34
    HIDDEN_LAYER = 35
    DREAM_UNIFORM = 41
    DREAM_NORMAL = 42
    DREAM_DROPOUT = 43
    FIDELITY_MOMENTS = 51
    FIDELITY_CONTROLLERS = 52
    FIDELITY_LATENTS = 53
    ACTING = 61


def episode_seeds(purpose: str, seed: int, count: int, *key: int) -> list[int]:
    """``count`` environment seeds of 31 bits for ``purpose``, which follow from ``seed`` and ``key``.

    Seeds for "evaluation" have their highest bit (2**30) set and all others do not, so that no agent is scored on an
    episode that was used for training or selection.
    """
    sequence = np.random.SeedSequence([seed, _PURPOSES[purpose], *key])
    words = sequence.generate_state(count, np.uint32) & (_EVALUATION_FLOOR - 1)
    offset = _EVALUATION_FLOOR if purpose == "evaluation" else 0
    return [int(word) + offset for word in words]


def row_seeds(seed: int | Sequence[int | None] | None, count: int) -> list[int]:
    """One seed per row of a vector environment, from the ``seed`` argument of its ``reset``.

    A sequence must hold one entry per row, or it is a :class:`UserError`; 31-bit seeds are derived from an integer, and
    drawn at random for None, also for a None in a sequence.
    """
    if seed is None or isinstance(seed, int | np.integer):
        sequence = np.random.SeedSequence(None if seed is None else int(seed))
        return [int(word) >> 1 for word in sequence.generate_state(count)]
    if len(seed) != count:
        raise UserError(f"expected {count} seeds, one per environment, got {len(seed)}")
    drawn = row_seeds(None, count) if None in seed else [0] * count
    return [random if given is None else int(given) for given, random in zip(seed, drawn, strict=True)]
