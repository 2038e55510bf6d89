"""Environments that are made by backend and kept between rounds of episodes, and the executor that works with them."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from gymnasium.vector import AutoresetMode

from process_env_worlds import ACTION, ENV_ID
from worldmodels.core.errors import UserError
from worldmodels.execution.environments import Environments, make_envs
from worldmodels.execution.executor import LocalExecutor, make_executor
from worldmodels.execution.recover import WorkerDied
from worldmodels.execution.workers import WorkersExecutor
from worldmodels.tasks.base import ArrayWorld, ProcessWorld, World
from worlds import Scripted, ScriptedEnv


def test_environments_are_made_anew_only_for_another_task_number_or_backend() -> None:
    kept, world, other = Environments(), Scripted(), Scripted()
    for count, backend in ((2, "fast"), (2, "fast"), (3, "fast"), (3, "slow"), (3, "slow")):
        assert kept.of(world, count, backend).num_envs == count
    assert world.made == [(2, "fast"), (3, "fast"), (3, "slow")]
    kept.of(other, 3, "slow")
    kept.of(world, 3, "slow")
    assert other.made == [(3, "slow")] and len(world.made) == 4
    kept.close()
    kept.of(world, 3, "slow")
    assert len(world.made) == 5


def test_what_is_kept_is_closed_before_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sets of games at once would need the memory of both."""
    kept, world, events = Environments(), Scripted(), []
    monkeypatch.setattr(ScriptedEnv, "close_extras", lambda self, **given: events.append(("closed", self.num_envs)))
    make = world._make
    monkeypatch.setattr(world, "_make", lambda *given: events.append(("made", given[0])) or make(*given))
    kept.of(world, 2, "fast")
    kept.of(world, 3, "fast")
    kept.close()
    kept.close()
    assert events == [("made", 2), ("closed", 2), ("made", 3), ("closed", 3)]


class Counted(Scripted):
    """Its environments live in worker processes; notes every sweep."""

    observation_shape = (4,)
    action_space = ACTION

    def __init__(self) -> None:
        super().__init__()
        self.sweeps = 0

    @property
    def worlds(self) -> Mapping[str, World]:
        return {"slow": ProcessWorld(ENV_ID, options={"trouble": ""}, cleanup=self._sweep)}

    def _sweep(self) -> None:
        self.sweeps += 1


def test_a_world_in_processes_is_swept_before_it_starts_and_after_it_has_ended() -> None:
    task = Counted()
    env = make_envs(task, 2, "slow")
    assert task.sweeps == 1 and env.single_action_space == ACTION
    env.close()
    assert task.sweeps == 2


class Restarting(ScriptedEnv):
    """Resets rows by itself, or does not say whether it does."""

    def __init__(self, num_envs: int, **metadata: Any) -> None:
        super().__init__(num_envs)
        self.metadata = metadata


@pytest.mark.parametrize(
    ("metadata", "what"),
    [({}, "names no autoreset_mode"), ({"autoreset_mode": AutoresetMode.NEXT_STEP}, "is AutoresetMode.NEXT_STEP")],
)
def test_a_world_that_would_fake_transitions_is_refused(metadata: dict[str, Any], what: str) -> None:
    class Faking(Scripted):
        @property
        def worlds(self) -> Mapping[str, World]:
            return {"slow": ArrayWorld(lambda num_envs: Restarting(num_envs, **metadata))}

    with pytest.raises(UserError, match=f"scripted with autoreset disabled, .* {what}; its metadata"):
        make_envs(Faking(), 2, "slow")


def test_worlds_of_another_name_and_empty_ones_are_refused() -> None:
    with pytest.raises(UserError, match="unknown backend 'jax' for scripted; choose from fast, slow"):
        make_envs(Scripted(), 1, "jax")
    with pytest.raises(UserError, match="at least 1 environment, got 0"):
        make_envs(Scripted(), 0, "fast")


# --- the executor --------------------------------------------------------------------------------------------


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor()
    yield made
    made.close()


def numbered(number: int, environments: Environments) -> int:
    return number


def test_results_come_one_by_one_and_in_the_order_of_the_chunks(executor: LocalExecutor) -> None:
    done: list[int] = []

    def work(number: int, environments: Environments) -> int:
        done.append(number)
        return number

    results = executor.map(partial(work, number) for number in range(4))
    assert next(results) == 0 and done == [0], "what is finished can be saved before the rest is done"
    assert list(results) == [1, 2, 3] and list(executor.map([])) == []


def test_work_is_repeated_in_new_environments_when_a_worker_dies_and_given_up_in_the_end(
    executor: LocalExecutor, capsys: pytest.CaptureFixture[str]
) -> None:
    world, seen = Scripted(), []

    def play(environments: Environments) -> int:
        seen.append(environments.of(world, 1, "fast"))
        if len(seen) < 3:
            raise WorkerDied("worker 1 of 1 was killed")
        return 7

    assert list(executor.map([partial(numbered, 1), play])) == [1, 7]
    assert len(world.made) == 3 and len({id(env) for env in seen}) == 3
    assert capsys.readouterr().err.count("was killed; starting again") == 2

    def hopeless(environments: Environments) -> int:
        raise WorkerDied("worker 1 of 1 was killed")

    with pytest.raises(UserError, match="gave up after trying 3 times"):
        list(executor.map([hopeless]))


def test_what_fails_for_another_reason_is_not_tried_again(executor: LocalExecutor) -> None:
    tries: list[int] = []

    def wrong(environments: Environments) -> None:
        tries.append(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(executor.map([wrong]))
    assert tries == [1]


def test_all_work_of_one_executor_shares_its_environments_until_it_is_closed(executor: LocalExecutor) -> None:
    world = Scripted()

    def play(environments: Environments) -> int:
        return id(environments.of(world, 2, "fast"))

    assert len({*executor.map([play, play]), *executor.map([play])}) == 1
    executor.close()
    list(executor.map([play]))
    assert world.made == [(2, "fast")] * 2


def test_executors_are_chosen_by_name() -> None:
    assert isinstance(make_executor("local"), LocalExecutor) and isinstance(make_executor("workers"), WorkersExecutor)
    assert isinstance(make_executor(), WorkersExecutor)
    assert isinstance(make_executor(device="cuda"), LocalExecutor), "processes should not share a GPU"
    with pytest.raises(UserError, match="unknown executor 'locale'; did you mean 'local'"):
        make_executor("locale")
