"""Seeds belong to the work: no two pieces of it share one."""

import itertools

import numpy as np
import pytest

from worldmodels.core import seeds
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import Stream, episode_seeds, row_seeds


def test_fitness_and_validation_of_different_phases_rounds_and_runs_share_no_seed() -> None:
    groups = {}
    for run_seed, phase in itertools.product((1, 2, 1_000_004), range(4)):  # the last is the second round of the first
        for generation in range(25):
            groups["fitness", run_seed, phase, generation] = episode_seeds("fitness", run_seed, 6, generation, phase)
        for purpose, count in (("validation", 100), ("reevaluation", 200)):
            groups[purpose, run_seed, phase] = episode_seeds(purpose, run_seed, count, 0, phase)
        groups["visited", run_seed, phase] = episode_seeds("visited", run_seed, 24, phase)
    every = [seed for group in groups.values() for seed in group]
    assert len(set(every)) == len(every) > 5000


@pytest.mark.parametrize("purpose", seeds._PURPOSES)
def test_only_evaluation_has_the_highest_bit(purpose: str) -> None:
    found = episode_seeds(purpose, 1, 1000)
    assert all(0 <= seed < 1 << 31 for seed in found)
    assert all((seed >= 1 << 30) == (purpose == "evaluation") for seed in found)


def test_two_uses_of_random_numbers_never_share_their_stream() -> None:
    assert len({int(stream) for stream in Stream}) == len(Stream.__members__)
    drawn = {stream: np.random.default_rng([1, stream]).random(4).tolist() for stream in Stream}
    assert len({tuple(numbers) for numbers in drawn.values()}) == len(Stream)
    # Environments' seeds come from purposes, which must not be streams either.
    assert not {int(stream) for stream in Stream} & set(seeds._PURPOSES.values())
    assert len(set(seeds._PURPOSES.values())) == len(seeds._PURPOSES)


def test_a_row_without_a_seed_gets_a_random_one_and_the_others_their_own() -> None:
    first, second = row_seeds([5, None, 7], 3), row_seeds([5, None, 7], 3)
    assert (first[0], first[2]) == (5, 7) and 0 <= first[1] < 2**31 and first[1] != second[1]
    with pytest.raises(UserError, match="expected 3 seeds, one per environment, got 2"):
        row_seeds([5, None], 3)
