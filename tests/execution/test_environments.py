"""Environments that are kept between rounds of episodes."""

import pytest

from worldmodels.core.errors import UserError
from worldmodels.execution.environments import Kept
from worldmodels.execution.recover import WorkerDied
from worlds import Scripted


def test_environments_are_made_anew_only_for_another_number_or_backend() -> None:
    kept = Kept(world := Scripted())
    for count, backend in ((2, "fast"), (2, "fast"), (3, "fast"), (3, "slow"), (3, "slow")):
        assert kept.retrying(count, backend, lambda env: env.num_envs) == count
    assert world.made == [(2, "fast"), (3, "fast"), (3, "slow")]
    kept.close()
    kept.retrying(3, "slow", lambda env: None)
    assert len(world.made) == 4


def test_work_is_repeated_in_new_environments_when_a_worker_dies_and_given_up_in_the_end() -> None:
    kept, seen = Kept(world := Scripted()), []

    def play(env: object) -> int:
        seen.append(env)
        if len(seen) < 3:
            raise WorkerDied("worker 1 of 1 was killed")
        return 7

    assert kept.retrying(1, "fast", play) == 7
    assert len(world.made) == 3 and len({id(env) for env in seen}) == 3

    def hopeless(env: object) -> int:
        raise WorkerDied("worker 1 of 1 was killed")

    with pytest.raises(UserError, match="gave up after trying 3 times"):
        kept.retrying(1, "fast", hopeless)
