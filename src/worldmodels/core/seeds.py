"""Seeds: they belong to the work and not to a process, and training never meets those of evaluation."""

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
    """Every use of random numbers that are not the environments': two uses of one seed never share their numbers."""

    FRAME_WINDOWS = 11
    FRAME_ORDER = 12
    VISION_NOISE = 13
    SEQUENCES = 21
    MEMORY_NOISE = 22
    BURN_IN_NOISE = 23
    CMA = 31
    PEPG = 32
    DREAM_UNIFORM = 41
    DREAM_NORMAL = 42
    FIDELITY_MOMENTS = 51
    FIDELITY_CONTROLLERS = 52
    FIDELITY_LATENTS = 53


def episode_seeds(purpose: str, seed: int, count: int, *key: int) -> list[int]:
    """``count`` environment seeds of 31 bits for one piece of work.

    Those of evaluation have their highest bit set and all others have not, so that no score is ever taken on a track
    that training or selection has seen.
    """
    sequence = np.random.SeedSequence([seed, _PURPOSES[purpose], *key])
    words = sequence.generate_state(count, np.uint32) & (_EVALUATION_FLOOR - 1)
    offset = _EVALUATION_FLOOR if purpose == "evaluation" else 0
    return [int(word) + offset for word in words]


def row_seeds(seed: int | Sequence[int | None] | None, count: int) -> list[int]:
    """One 31-bit seed per row of a vector environment, from what ``reset`` was given."""
    if seed is None or isinstance(seed, int | np.integer):
        sequence = np.random.SeedSequence(None if seed is None else int(seed))
        return [int(word) >> 1 for word in sequence.generate_state(count)]
    seeds = [int(one) for one in seed if one is not None]
    if len(seeds) != count:
        raise UserError(f"expected {count} seeds, one per environment, got {len(seeds)}")
    return seeds
