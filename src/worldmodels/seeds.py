"""Seeds of environments: they belong to the work, not to a process, and training never meets those of evaluation."""

import numpy as np

_PURPOSES = {
    "collect": 1,
    "fitness": 2,
    "validation": 3,
    "evaluation": 4,
    "play": 5,
    "report": 6,
    "probe": 7,
    "centre": 8,
    "finals": 9,
}
_EVALUATION_FLOOR = 1 << 30


def episode_seeds(purpose: str, seed: int, count: int, *key: int) -> list[int]:
    """``count`` environment seeds of 31 bits for one piece of work.

    Those of evaluation have their highest bit set and all others have not, so that no score is ever taken on a track
    that training or selection has seen.
    """
    sequence = np.random.SeedSequence([seed, _PURPOSES[purpose], *key])
    words = sequence.generate_state(count, np.uint32) & (_EVALUATION_FLOOR - 1)
    offset = _EVALUATION_FLOOR if purpose == "evaluation" else 0
    return [int(word) + offset for word in words]
