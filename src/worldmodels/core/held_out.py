"""Which episodes are held out: not trained on, so that they show when training begins to fit nothing but its data."""

import numpy as np

from worldmodels.core.seeds import Stream


def held_out_episodes(count: int, share: float, seed: int) -> np.ndarray:
    """Which of ``count`` episodes are held out, (count,) bool: ``share`` of them (0 to 0.5), evenly spread.

    At least one is, if the share is above 0 and there are two. An episode stays what it is when others are added after
    it, as those of later rounds are.
    """
    phase = np.random.default_rng([seed, Stream.HELD_OUT]).random()
    chosen = np.diff(np.floor(np.arange(count + 1) * share + phase)) > 0
    if share > 0 and count > 1 and not chosen.any():
        chosen[int(phase * count)] = True
    return np.asarray(chosen & (count > 1))
