"""Who plays while episodes are collected: whoever it is, the data are aligned, allowed, and the same after a kill."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from collecting import CPU, ITEMS, assert_played_back, collect_with_kills, contents, pipeline
from outside import registered
from worldmodels.agent import Agent, load_agent
from worldmodels.cli import runs
from worldmodels.core.errors import UserError
from worldmodels.core.settings import from_json, to_json
from worldmodels.data.collect import record_episodes
from worldmodels.data.collectors import COLLECTORS, check_policy, make_collector, plays_agent
from worldmodels.data.episodes import Episode
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.rollouts import rollout
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.config import Config
from worldmodels.tasks import Task, get_task
from worldmodels.tasks.base import Observations
from worldmodels.tasks.bin_packing.rules import RULES
from worldmodels.tasks.bin_packing.task import BinPacking, variant
from worldmodels.tasks.bin_packing.world import BinPackingVectorEnv
from worldmodels.vision.conv_vae import ConvVAE


def packer(folder: Path, name: str = "bin-packing") -> Path:
    """An untrained agent, saved."""
    torch.manual_seed(0)
    task = get_task(name)
    size = task.control_size
    Agent(task, ConvVAE(4), MDNRNN(4, size, 8, 2, reward=True), torch.randn(size * 13), inputs=("z", "h")).save(folder)
    return folder


def recorded(task: Task, policy: str, folder: Path, seeds: Sequence[int]) -> list[Episode]:
    steps = ITEMS * len(seeds)
    collector = make_collector(LocalExecutor(), task, policy, folder, 1, CPU, steps)
    return collector.record(0, "native", seeds, task.max_steps)


@pytest.mark.parametrize("policy", ["exploration", "random", "best-fit", "sum-of-squares", "agent"])
def test_whoever_plays_every_frame_action_and_reward_is_in_its_place_and_allowed(
    policy: str, short: BinPacking, tmp_path: Path
) -> None:
    name = str(packer(tmp_path / "agent")) if policy == "agent" else policy
    for episode in recorded(short, name, tmp_path / "run", range(40, 46)):
        assert_played_back(short, episode)


@pytest.mark.parametrize("rule", RULES)
def test_a_rules_data_are_what_it_does_on_the_state_but_for_noise(rule: str, tmp_path: Path) -> None:
    short_and_small = variant(9, "perfect-packing")
    short_and_small.max_steps = 60
    for task in (get_task("bin-packing"), short_and_small()):
        assert isinstance(task, BinPacking)
        world, policy = task.rule(rule)
        plain = record_episodes(LocalExecutor(), world, "native", policy, range(8), 60)
        seen: list[np.ndarray] = []

        class Watched:
            def __init__(self, seeds: Sequence[int]) -> None:
                self.rule = policy(seeds)  # noqa: B023

            def act(self, observations: Observations, rows: np.ndarray) -> np.ndarray:
                seen.append(observations.raw.copy())  # noqa: B023
                return self.rule.act(observations, rows)

        states_of = task._world(8, "state")
        wanted = rollout(world, states_of, Watched(range(8)), range(8), 60)
        assert [episode.rewards.sum() for episode in plain] == wanted.returns.tolist()
        draw = task._world(8, "picture")._picture
        for step, states in enumerate(seen):
            frames = np.stack([episode.frames[step] for episode in plain])
            np.testing.assert_array_equal(frames, draw(states[:, :-1], states[:, -1]))
    perturbed = recorded(task, rule, tmp_path, range(200, 240))
    states = [assert_played_back(task, episode)[:-1] for episode in perturbed]
    if not rule.startswith("uniform"):
        agreed = [
            (RULES[rule](seen, np.random.default_rng(0)) == episode.actions.argmax(axis=1)).mean()
            for seen, episode in zip(states, perturbed, strict=True)
        ]
        assert 0.85 < np.mean(agreed) < 1 and np.max(agreed) == 1


def test_more_than_40_bins_of_a_level_confuse_no_rule() -> None:
    class Ones(BinPacking):
        max_steps = 100

        def _world(self, num_envs: int, observation: str) -> BinPackingVectorEnv:
            return BinPackingVectorEnv(num_envs, 30, [0, 0, 0, 0, 0, 0, 0, 0, 1.0], 100, observation=observation)

    always_new = Ones()._world(1, "state")
    state, _ = always_new.reset(seed=1)
    for _ in range(60):
        state, *_ = always_new.step(np.zeros(1, np.int64))
    assert state[0, 9] == 60
    world, _ = get_task("bin-packing").rule("best-fit")
    assert world.action_mask(world.frames(state))[0].nonzero()[0].tolist() == [0, 9]


def test_the_small_variants_rules_play_their_own_world() -> None:
    for name in ("bin-packing-9-linear-waste", "bin-packing-9-bounded-waste"):
        world, _ = get_task(name).rule("best-fit")
        assert (world.name, world.action_size, world.observation_shape) == (name, 9, (10,))


@pytest.mark.parametrize("policy", ["best-fit", "agent", "exploration+agent"])
def test_killed_again_and_again_the_data_are_the_same(policy: str, short: BinPacking, tmp_path: Path) -> None:
    name = policy.replace("agent", str(packer(tmp_path / "agent")))
    whole, broken = pipeline(tmp_path / "whole", name), pipeline(tmp_path / "broken", name)
    whole.collect()
    collect_with_kills(broken)
    assert whole.artifacts.digest("collect") == broken.artifacts.digest("collect")
    assert [shard.lengths.max() for shard in whole.artifacts.shards()] == [30, 30, 30, 20]


def test_policies_of_a_mixture_take_turns_shard_by_shard(short: BinPacking, tmp_path: Path) -> None:
    agent = packer(tmp_path / "agent")
    mixed = make_collector(LocalExecutor(), short, f"random+best-fit+{agent}", tmp_path / "mixed", 1, CPU, 0)
    for index, policy in enumerate(["random", "best-fit", str(agent), "random"]):
        alone = make_collector(LocalExecutor(), short, policy, tmp_path / "alone", 1, CPU, 0)
        found, wanted = (each.record(index, "native", [7, 8], 20) for each in (mixed, alone))
        for one, other in zip(found, wanted, strict=True):
            assert (one.frames == other.frames).all() and (one.actions == other.actions).all()


@pytest.mark.parametrize(
    ("policy", "agent"),
    [
        ("random", False),
        ("best-fit", False),
        ("rainbow", False),
        ("imported-1a2b", False),
        ("random+best-fit", False),
        ("bin-packing", True),
        ("runs/a+b", True),
        ("random+bin-packing", True),
    ],
)
def test_it_is_known_whether_an_agent_plays(policy: str, agent: bool, short: BinPacking) -> None:
    assert plays_agent(short, policy) is agent


def test_an_agent_that_plays_the_first_round_may_leave_the_noise_out(short: BinPacking, tmp_path: Path) -> None:
    agent = packer(tmp_path / "agent")
    arguments = (LocalExecutor(), short, f"random+{agent}", tmp_path / "mixed", 1, CPU, 0)
    found = make_collector(*arguments, noise_free=1.0).record(1, "native", [7], 20)
    plain = record_episodes(LocalExecutor(), short, "native", lambda seeds: load_agent(agent).policy(1), [7], 20)
    assert (found[0].actions == plain[0].actions).all()


def test_the_collect_stage_counts_steps_and_not_frames(short: BinPacking, tmp_path: Path) -> None:
    metrics = pipeline(tmp_path / "run", "random").collect()["metrics"]
    assert metrics["steps"] == 6 * ITEMS + 2 * 20 and "frames" not in metrics


def test_a_run_goes_on_when_the_agent_that_plays_is_gone(short: BinPacking, tmp_path: Path) -> None:
    agent = packer(tmp_path / "agent")
    line = pipeline(tmp_path / "run", str(agent))
    line.collect()
    before = contents(tmp_path / "run")
    digest = load_agent(agent).digest()
    (agent / "agent.safetensors").unlink()
    folder = tmp_path / "run" / "round-1" / "episodes"
    assert load_agent(folder / "policy").digest() == digest
    for part in sorted((folder / "shard-00001.zarr").rglob("*"), reverse=True):
        part.rmdir() if part.is_dir() else part.unlink()
    (folder / "shard-00001.zarr").rmdir()
    line.collect()
    assert contents(tmp_path / "run") == before


def test_later_rounds_are_played_by_the_last_rounds_agent(
    short: BinPacking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = load_agent(packer(tmp_path / "agent"))
    monkeypatch.setattr(Artifacts, "agent", lambda self, device: agent)
    first = pipeline(tmp_path / "run", "best-fit")
    second = dataclasses.replace(first, artifacts=dataclasses.replace(first.artifacts, round=2))
    found = second._collector(tmp_path).record(0, "native", [5], ITEMS)
    wanted = record_episodes(
        LocalExecutor(), short, "native", lambda seeds: short.perturbed(agent.policy(len(seeds)), seeds), [5], ITEMS
    )
    assert (found[0].frames == wanted[0].frames).all()


@pytest.mark.parametrize(
    ("task", "policy", "message"),
    [
        (
            "bin-packing",
            "bestfit",
            "unknown policy 'bestfit' for bin-packing; choose exploration, perturbed, random, best-fit, ",
        ),
        ("bin-packing", "", "unknown policy ''"),
        (
            "car-racing",
            "best-fit",
            "for car-racing; choose exploration, perturbed, random, follow-road, rainbow, a shipped",
        ),
        ("take-cover", "best-fit", "choose exploration, perturbed, random, rainbow, a shipped"),
        ("bin-packing", "car-racing", "expected an agent for bin-packing as policy, car-racing is one for car-racing"),
        ("bin-packing", "random+rainbow", "rainbow learns from what it plays and cannot share the episodes"),
        ("bin-packing", "random+bestfit", "unknown policy 'bestfit' for bin-packing"),
        ("bin-packing", "random+car-racing", "expected an agent for bin-packing as policy"),
        ("bin-packing", "random+bin-packing+bin-packing", "expected at most one agent among the policies"),
        ("car-racing", "rainbow", "expected a discrete action space for the policy rainbow, car-racing has Box"),
    ],
)
def test_a_policy_that_cannot_play_is_refused_in_one_line(task: str, policy: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        check_policy(get_task(task), policy)
    assert "\n" not in str(refused.value)


def test_the_command_refuses_before_it_makes_a_run(tmp_path: Path) -> None:
    for option in (["--policy", "bestfit"], ["--policy=bestfit"], ["--collect.policy", "bestfit"]):
        with pytest.raises(UserError, match="unknown policy 'bestfit'"):
            runs.stage("collect", ["bin-packing", "--run", str(tmp_path / "run"), *option], "")
    assert not (tmp_path / "run").exists()


def test_the_short_option_is_the_long_one_and_another_policy_is_another_run(short: BinPacking, tmp_path: Path) -> None:
    size = ["--collect.episodes", "2", "--collect.num-envs", "2", "--device", "cpu"]
    arguments = ["bin-packing", "--run", str(tmp_path / "run"), *size]
    runs.stage("collect", [*arguments, "--policy", "best-fit"], "")
    written = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert written["collect"]["policy"] == "best-fit"
    with pytest.raises(UserError, match=r"made with --collect.policy best-fit, not random"):
        runs.stage("collect", [*arguments, "--policy", "random"], "")
    runs.stage("collect", arguments, "")


def test_a_policy_that_learns_is_a_class_and_one_line(short: BinPacking, tmp_path: Path) -> None:
    class Diligent:
        def __init__(self, *given: object) -> None:
            self.given = given

    executor = LocalExecutor()
    with registered(COLLECTORS, "diligent", Diligent):
        check_policy(short, "diligent")
        collector = make_collector(executor, short, "diligent", tmp_path, 3, CPU, 60)
    assert isinstance(collector, Diligent)
    assert collector.given[:2] == (executor, short) and collector.given[3:] == (3, CPU, 60)
    with pytest.raises(UserError, match="unknown policy 'diligent'"):
        check_policy(short, "diligent")


def test_a_policy_that_learns_may_refuse_a_task(short: BinPacking, tmp_path: Path) -> None:
    class Picky:
        @staticmethod
        def check(task: Task) -> None:
            raise UserError(f"picky does not play {task.name}")

    with registered(COLLECTORS, "picky", Picky), pytest.raises(UserError, match="picky does not play bin-packing"):
        check_policy(short, "picky")
    with registered(COLLECTORS, "picky", Picky), pytest.raises(UserError, match="picky, rainbow, a shipped agent"):
        check_policy(short, "fussy")


def test_settings_that_name_no_policy_are_explorations() -> None:
    content = to_json(Config())
    del content["collect"]["policy"]
    assert from_json(Config, content) == Config()


def test_without_tianshou_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("worldmodels.data.rainbow", "tianshou"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tianshou", None)
    with pytest.raises(UserError, match=r'pip install "worldmodels\[rl\]"'):
        check_policy(get_task("bin-packing"), "rainbow")
    with pytest.raises(UserError, match=r'pip install "worldmodels\[rl\]"'):
        import worldmodels.data.rainbow  # noqa: F401
