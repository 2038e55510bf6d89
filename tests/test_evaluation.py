"""Scores: their seeds, their statistics, and evaluations that were cut short."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import VectorEnv

from worldmodels.cli import measure
from worldmodels.core.files import read_json, write_json
from worldmodels.core.seeds import _PURPOSES, episode_seeds
from worldmodels.evaluation import (
    evaluate,
    finished_text,
    goal_of,
    print_scores,
    report,
    statistics,
)
from worldmodels.execution.executor import LocalExecutor
from worldmodels.rollouts import Rollouts
from worldmodels.tasks import Task, get_task
from worldmodels.tasks.base import PolicyFor
from worlds import MAX_STEPS, Diarist, Goals, Scripted, ScriptedEnv, ends_by_itself, length_of, reward_at

# --- seeds ---------------------------------------------------------------------------------------------------

OTHERS = sorted(set(_PURPOSES) - {"evaluation"})


def test_no_score_is_ever_taken_on_a_track_that_training_or_selection_has_seen() -> None:
    for run_seed in (0, 1, 2, 999):
        scored = set(episode_seeds("evaluation", run_seed, 2000))
        assert all(2**30 <= seed < 2**31 for seed in scored)
        for purpose in OTHERS:
            for key in ((), (0,), (17,)):
                others = episode_seeds(purpose, run_seed, 2000, *key)
                assert all(0 <= seed < 2**30 for seed in others), purpose


def test_every_purpose_run_and_generation_has_seeds_of_its_own() -> None:
    groups = [
        episode_seeds(purpose, seed, 50) for purpose in ("collect", "validation", "evaluation") for seed in (1, 2)
    ]
    groups += [episode_seeds("fitness", seed, 50, generation) for generation in range(20) for seed in (1, 2)]
    flat = [seed for group in groups for seed in group]
    assert len(set(flat)) == len(flat)


def test_seeds_depend_on_the_work_alone_and_more_of_them_begin_with_the_same() -> None:
    for purpose in OTHERS:
        assert episode_seeds(purpose, 5, 40, 3)[:10] == episode_seeds(purpose, 5, 10, 3)


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    """Published scores name their seed; these numbers must never change."""
    assert episode_seeds("evaluation", 1, 3) == [1401652984, 1464560184, 2033848139]


# --- statistics ----------------------------------------------------------------------------------------------


def test_statistics_are_those_of_numpy_with_the_samples_standard_deviation() -> None:
    returns = np.random.default_rng(1).normal(800, 100, 37)
    found = statistics(returns)
    assert found["mean"] == pytest.approx(np.mean(returns)) and found["median"] == pytest.approx(np.median(returns))
    assert found["sd"] == pytest.approx(np.sqrt(((returns - returns.mean()) ** 2).sum() / 36))
    half = 2.028094 * found["sd"] / np.sqrt(37)  # Student's t with 36 degrees of freedom
    assert found["ci95"] == pytest.approx([returns.mean() - half, returns.mean() + half])


def test_the_interval_holds_the_true_mean_in_about_95_of_100_cases() -> None:
    stream = np.random.default_rng(2)
    for count in (3, 100):
        hits = 0
        for _ in range(2000):
            low, high = statistics(stream.normal(5.0, 3.0, count))["ci95"]
            hits += low <= 5.0 <= high
        assert 0.93 < hits / 2000 < 0.97, f"{count} episodes"


def test_of_a_single_episode_nothing_is_known_but_its_return(capsys: pytest.CaptureFixture[str]) -> None:
    assert statistics(np.array([7.0])) == {"mean": 7.0, "sd": None, "median": 7.0, "ci95": None}
    print_scores({"one": report(Scripted(), "one", "slow", [1], np.array([7.0]))})
    assert capsys.readouterr().out.count("n/a") == 2, "neither a standard deviation nor an interval"


def test_a_report_says_what_was_scored_and_how_and_the_table_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    task, returns = get_task("car-racing"), np.array([10.0, 20.0])
    origin = {"run": "runs/a", "preset": "quick", "round": 2, "seed": 7, "other": "note"}
    row = report(task, "mine", "gymnasium", [1, 2], returns, origin=origin)
    about = {"task": "car-racing", "agent": "mine", "run": "runs/a", "preset": "quick", "round": 2, "run_seed": 7}
    about |= {"backend": "gymnasium", "device": "cpu", "episodes": 2, "steps": 1000, "cut_short": False}
    about |= {"seeds": [1, 2], "returns": [10.0, 20.0], "made_with": row["made_with"]}
    assert row == about | statistics(returns)
    assert {"worldmodels", "torch", "gymnasium", "box2d"} <= row["made_with"]["versions"].keys()
    assert "envpool" not in row["made_with"]["versions"], "the packages are those of the backend"
    print_scores({"mine": row})
    shown = capsys.readouterr().out
    assert "mine" in shown and "15.0" in shown and "gymnasium" in shown and "cut short" not in shown


def test_episodes_that_are_shorter_than_the_tasks_limit_are_said_to_give_no_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = report(get_task("car-racing"), "mine", "gymnasium", [1, 2], np.array([10.0, 20.0]), steps=300)
    assert row["steps"] == 300 and row["cut_short"]
    print_scores({"mine": row})
    assert "cut short at 300 steps: not a score" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    whole = report(get_task("car-racing"), "mine", "gymnasium", [1, 2], np.array([10.0, 20.0]), steps=5000)
    assert whole["steps"] == 1000 and not whole["cut_short"]


# --- evaluating ----------------------------------------------------------------------------------------------

SEEDS = list(range(30, 43))
WANTED = [sum(reward_at(seed, step) for step in range(length_of(seed))) for seed in SEEDS]


def diarists(seeds: Sequence[int]) -> Diarist:
    return Diarist()


def evaluated(task: Task, policy: PolicyFor, seeds: Sequence[int], num_envs: int, **options: Any) -> list[float]:
    """Scores on the slow backend, by an executor of their own."""
    with contextlib.closing(LocalExecutor()) as executor:
        return evaluate(executor, task, policy, "slow", seeds, num_envs, **options).returns.tolist()


def test_every_seed_is_played_once_and_in_order() -> None:
    task = Scripted()
    assert evaluated(task, diarists, SEEDS, num_envs=5) == WANTED
    assert task.made == [(5, "slow"), (3, "slow")], "environments are kept while their number stays"


@pytest.mark.parametrize("num_envs", [1, 4, 13, 100])
def test_the_number_of_environments_changes_no_score(num_envs: int) -> None:
    assert evaluated(Scripted(), diarists, SEEDS, num_envs) == WANTED


def test_a_dead_worker_changes_no_score() -> None:
    task = Scripted()
    make, deaths = task._make, iter([True])

    def mortal(num_envs: int, backend: str) -> VectorEnv:
        env = make(num_envs, backend)
        assert isinstance(env, ScriptedEnv)
        reset = env.reset

        def heal(**options: Any) -> Any:  # dies in its first episode only
            env._dies = next(deaths, False)
            return reset(**options)

        env.reset = heal  # type: ignore[method-assign]
        return env

    task._make = mortal  # type: ignore[method-assign]
    assert evaluated(task, diarists, SEEDS, 13) == WANTED
    assert next(deaths, None) is None


LAST = [reward_at(seed, length_of(seed) - 1) for seed in SEEDS]
FINISHED = [ends_by_itself(seed) and int(last) % 4 == 0 for seed, last in zip(SEEDS, LAST, strict=True)]


def episodes_of(task: Task, policy: PolicyFor, num_envs: int, **options: Any) -> Rollouts:
    """The results of all episodes on the slow backend."""
    with contextlib.closing(LocalExecutor()) as executor:
        return evaluate(executor, task, policy, "slow", SEEDS, num_envs, **options)


@pytest.mark.parametrize("num_envs", [1, 4, 100])
def test_the_length_the_end_and_the_last_reward_of_every_episode_are_told_too(num_envs: int) -> None:
    found = episodes_of(Scripted(), diarists, num_envs)
    assert found.returns.tolist() == WANTED and found.lengths.tolist() == [length_of(seed) for seed in SEEDS]
    assert found.terminated.tolist() == [ends_by_itself(seed) for seed in SEEDS]
    assert found.last_rewards.tolist() == LAST


def test_a_report_of_a_world_with_a_goal_says_how_many_episodes_reached_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert {True, False} == set(FINISHED)
    row = report(Goals(), "mine", "slow", SEEDS, episodes_of(Goals(), diarists, 4))
    assert row["facts"] == {"steps": [length_of(seed) for seed in SEEDS], "finished": FINISHED, "last": LAST}
    count = sum(FINISHED)
    low, high = row["finished"].pop("ci95")
    assert row["finished"] == {"goal": "finished games", "count": count, "share": count / 13}
    assert 0 <= low < count / 13 < high <= 1
    row["finished"]["ci95"] = [low, high]
    assert json.loads(json.dumps(row)) == row
    print_scores({"mine": row, "[bold]other": row})
    shown = " ".join(capsys.readouterr().out.split())
    text = f"{count / 13:.0%} ({low:.0%} to {high:.0%})"
    assert finished_text(row) == text and f"finished games: mine {text}, [bold]other {text}" in shown


def test_of_a_world_without_a_goal_nothing_more_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    task = Scripted()
    row = report(task, "mine", "slow", SEEDS, episodes_of(task, diarists, 4))
    assert row == report(task, "mine", "slow", SEEDS, np.array(WANTED))
    print_scores({"mine": row})
    assert "finished" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "old",
    [
        {},
        {"finished": None},
        {"finished": {}},
        {"finished": {"share": 0.5, "ci95": [0.4]}},
        {"finished": {"share": "half", "ci95": [0, 1]}},
    ],
)
def test_scores_without_the_share_are_still_shown(old: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    row = report(Goals(), "old", "slow", [1, 2], np.array([7.0, 8.0])) | old
    assert finished_text(row) == goal_of(row) == ""
    new = report(Goals(), "new", "slow", SEEDS, episodes_of(Goals(), diarists, 4))
    print_scores({"old": row, "new": new})
    assert f"finished games: new {finished_text(new)}\n" in capsys.readouterr().out


class Counted:
    """Policies for chunks of seeds; gives up before chunk ``until``."""

    def __init__(self, until: int = 1000) -> None:
        self.chunks: list[list[int]] = []
        self._until = until

    def __call__(self, seeds: Sequence[int]) -> Diarist:
        if len(self.chunks) == self._until:
            raise KeyboardInterrupt
        self.chunks.append(list(seeds))
        return Diarist()


def test_an_evaluation_that_was_cut_short_goes_on_where_it_stopped(tmp_path: Path) -> None:
    partial = tmp_path / "partial.json"
    with pytest.raises(KeyboardInterrupt):
        evaluated(Scripted(), Counted(until=2), SEEDS, 4, partial_file=partial, identity="A")
    rest = Counted()
    found = evaluated(Scripted(), rest, SEEDS, 4, partial_file=partial, identity="A")
    assert found == WANTED and rest.chunks == [SEEDS[8:12], SEEDS[12:]]
    again = Counted()
    assert evaluated(Scripted(), again, SEEDS, 4, partial_file=partial, identity="A") == WANTED
    assert again.chunks == []


def test_an_evaluation_that_goes_on_knows_all_of_the_episodes_before(tmp_path: Path) -> None:
    partial = tmp_path / "partial.json"
    with pytest.raises(KeyboardInterrupt):
        episodes_of(Goals(), Counted(until=2), 4, partial_file=partial)
    found = report(Goals(), "a", "slow", SEEDS, episodes_of(Goals(), rest := Counted(), 4, partial_file=partial))
    assert found == report(Goals(), "a", "slow", SEEDS, episodes_of(Goals(), diarists, 4))
    assert rest.chunks == [SEEDS[8:12], SEEDS[12:]]


def test_a_partial_file_of_an_earlier_version_is_not_used_and_is_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "partial.json"
    evaluated(Scripted(), Counted(), SEEDS[:8], 4, partial_file=partial, identity="A")
    content = read_json(partial, checksum=True)
    for name in ("lengths", "terminated", "last_rewards"):
        del content[name]
    write_json(partial, content, checksum=True)
    capsys.readouterr()
    policies = Counted()
    assert evaluated(Scripted(), policies, SEEDS, 4, partial_file=partial, identity="A") == WANTED
    assert [seed for chunk in policies.chunks for seed in chunk] == SEEDS
    assert "damaged" not in capsys.readouterr().err


def test_more_episodes_use_those_that_are_there_and_fewer_are_a_part_of_them(tmp_path: Path) -> None:
    partial = tmp_path / "partial.json"
    evaluated(Scripted(), Counted(), SEEDS[:8], 4, partial_file=partial)
    more = Counted()
    assert evaluated(Scripted(), more, SEEDS, 10, partial_file=partial) == WANTED
    assert more.chunks == [SEEDS[8:]]
    assert evaluated(Scripted(), Counted(), SEEDS[:3], 4, partial_file=partial) == WANTED[:3]


@pytest.mark.parametrize(("seeds", "identity"), [(SEEDS, "B"), (SEEDS[::-1], "A")])
def test_what_another_policy_or_other_seeds_left_is_not_used(tmp_path: Path, seeds: list[int], identity: str) -> None:
    partial = tmp_path / "partial.json"
    evaluated(Scripted(), Counted(), SEEDS[:8], 4, partial_file=partial, identity="A")
    policies = Counted()
    evaluated(Scripted(), policies, seeds, 4, partial_file=partial, identity=identity)
    assert [seed for chunk in policies.chunks for seed in chunk] == seeds


WRONG: dict[str, Any] = {
    "a list": [],
    "no returns": {"identity": "A", "seeds": SEEDS},
    "returns that are words": {"returns": ["many"]},
    "returns that are a number": {"returns": 3},
    "returns beyond all numbers": {"returns": [10**400]},
    "fewer lengths than returns": {"lengths": [3]},
    "lengths beyond all numbers": {"lengths": [10**400] * 8},
    "last rewards that are no number": {"last_rewards": [None] * 8},
    "more returns than seeds": {"returns": [1.0] * 5, "seeds": SEEDS[:4]},
    "seeds that are none": {"seeds": None},
    "no identity": {"returns": [1.0], "seeds": SEEDS},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_partial_file_of_the_wrong_shape_is_not_used_and_that_is_said(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = tmp_path / "partial.json"
    evaluated(Scripted(), Counted(), SEEDS[:8], 4, partial_file=partial, identity="A")
    content = WRONG[case]
    if isinstance(content, dict) and "identity" not in content and case != "no identity":
        content = read_json(partial, checksum=True) | content
    if isinstance(content, dict):
        write_json(partial, content, checksum=True)
    else:
        partial.write_text(json.dumps(content))
    capsys.readouterr()
    policies = Counted()
    assert evaluated(Scripted(), policies, SEEDS, 4, partial_file=partial, identity="A") == WANTED
    assert [seed for chunk in policies.chunks for seed in chunk] == SEEDS
    said = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert said == [f"{partial} is damaged and not used; the evaluation starts anew"]


CONDITIONS = {
    "another limit": {"steps": 3},
    "another device": {"device": torch.device("meta")},
    "another version": {},
    "another backend": {"backend": "fast"},
}


@pytest.mark.parametrize("change", CONDITIONS)
def test_what_was_scored_under_other_conditions_is_not_used(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial, policies = tmp_path / "partial.json", Counted()
    evaluated(Scripted(), Counted(), SEEDS, 5, partial_file=partial)
    if change == "another version":
        monkeypatch.setattr("worldmodels.evaluation.versions", lambda modules: {"gymnasium": "0.0.1"})
    options: dict[str, Any] = {"backend": "slow", "partial_file": partial} | CONDITIONS[change]
    with contextlib.closing(LocalExecutor()) as executor:
        evaluate(executor, Scripted(), policies, seeds=SEEDS, num_envs=5, **options)
    assert [seed for chunk in policies.chunks for seed in chunk] == SEEDS


def test_longer_episodes_than_the_tasks_limit_are_not_played() -> None:
    assert evaluated(Scripted(), diarists, SEEDS, 13, steps=10 * MAX_STEPS) == WANTED


def test_shorter_episodes_are_cut_at_their_limit() -> None:
    found = evaluated(Scripted(), diarists, SEEDS, 13, steps=2)
    assert found == [reward_at(seed, 0) + reward_at(seed, 1) for seed in SEEDS]
    assert evaluated(Scripted(), diarists, SEEDS, 13, steps=MAX_STEPS) == WANTED


def test_the_verb_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, target = Scripted(), tmp_path / "scores.json"
    monkeypatch.setattr("worldmodels.tasks.get_task", lambda *_: task)
    monkeypatch.setattr("worldmodels.core.seeds.episode_seeds", lambda purpose, seed, count: SEEDS[:count])
    monkeypatch.setattr(task, "random_policy", first := Counted(until=2))
    command = ["scripted", *["--policy", "random", "--episodes", "10", "--num-envs", "4", "--json"], str(target)]
    command += ["--executor", "local"]
    with pytest.raises(KeyboardInterrupt):
        measure.evaluate("evaluate", command, "")
    assert list(tmp_path.iterdir()) == [tmp_path / ".scores.json.partial"]
    monkeypatch.setattr(task, "random_policy", rest := Counted())
    measure.evaluate("evaluate", command, "")
    assert [seed for chunk in first.chunks + rest.chunks for seed in chunk] == SEEDS[:10]
    result = json.loads(target.read_text())
    assert result["returns"] == WANTED[:10] and result["steps"] == MAX_STEPS and not result["cut_short"]
    assert list(tmp_path.iterdir()) == [target], "nothing is left but the result"
