"""The benchmarks' figures follow from what they measured, and their baselines compute what the agent computes."""

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from outside import registered
from worldmodels.agent import Agent, untrained_agent
from worldmodels.bench import BENCHMARKS, acting, evolution, measure, run_bench, vision, world
from worldmodels.bench import dream as dream_bench
from worldmodels.bench.clocked import Recording, replayed_steps
from worldmodels.bench.machine import machine
from worldmodels.bench.measure import Spread, agent_for, interleaved
from worldmodels.bench.plain import PlainAgent, PlainVAE, plain_images
from worldmodels.cli.main import main
from worldmodels.core.errors import UserError
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.rollouts import rollout
from worldmodels.tasks import TASKS, get_task
from worldmodels.tasks.base import ProcessWorld, World
from worldmodels.tasks.car_racing.task import CarRacing
from worldmodels.vision.conv_vae import ConvVAE

ACTING_KEYS = {
    "simulator_steps_per_s", "bound_steps_per_s", "acting_steps_per_s", "share_of_bound", "busy_steps_per_s",
    "busy_share", "alone_steps_per_s", "scaling", "microseconds",
}  # fmt: skip
VISION_KEYS = {
    "train_frames_per_s", "peak_gflops", "dtype", "share_of_peak", "plain_frames_per_s", "speedup",
    "encode_frames_per_s",
}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = acting.Sizes(rows=3, rows_on_gpu=3, steps=4, batches=2, plain_steps=3)
    monkeypatch.setattr(acting, "SIZES", small)
    monkeypatch.setattr(evolution, "SIZES", evolution.Sizes(2, 2, dreams=3, steps=4, product=64))
    smaller = vision.Sizes(batch=4, steps=2, plain_steps=1, product=64, products=2, encode_frames=16)
    monkeypatch.setattr(vision, "SIZES", smaller)


def _spreads(**values: list[float]) -> dict[str, Spread]:
    return {name: Spread(tuple(some)) for name, some in values.items()}


def test_measurements_are_taken_in_turns_and_all_repeats_are_kept() -> None:
    order: list[str] = []

    def measure(name: str) -> dict[str, float]:
        order.append(name)
        return {name: float(len(order))}

    spreads = interleaved([lambda: measure("a"), lambda: measure("b")], 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert spreads["b"].values == (2.0, 4.0, 6.0)
    assert spreads["a"].to_json() == {"median": 3.0, "min": 1.0, "max": 5.0, "values": [1.0, 3.0, 5.0]}


def test_the_bound_adds_the_times_of_simulator_and_encoder_and_figures_come_from_medians() -> None:
    spreads = _spreads(
        encoder=[12000.0],
        plain=[180.0],
        **{
            "fast simulator": [1.0, 4000.0, 9999.0],
            "fast acting": [2700.0, 2000.0, 2800.0],
            "fast busy": [1800.0],
            "fast alone": [1500.0],
            **{f"fast us {part}": [5.0] for part in ("simulator", "policy", "loop")},
            "us frames": [2.0],
        },
    )
    figures = acting.figures(spreads, ["fast"])
    fast = figures["backends"]["fast"]
    assert fast["bound_steps_per_s"] == pytest.approx(3000.0)
    assert (fast["share_of_bound"], fast["busy_share"], fast["scaling"]) == pytest.approx((0.9, 2 / 3, 1.8))
    assert fast["microseconds"] == {"simulator": 5.0, "policy": 5.0, "loop": 5.0, "frames": 2.0}
    assert figures["speedup"] == pytest.approx(15.0)
    del spreads["plain"]
    without = acting.figures(spreads, ["fast"])
    assert without["plain_steps_per_s"] is None and without["speedup"] is None


def test_a_generation_is_compared_with_acting_and_with_itself_beside_a_busy_process() -> None:
    spreads = _spreads(**{"a generation": [900.0, 1000.0, 2000.0], "a busy": [600.0], "a acting": [1250.0]})
    spreads |= _spreads(**{"a simulator": [2000.0], "encoder": [8000.0]})
    found = evolution.figures(spreads, ["a"], ["a"], 4e6)["worlds"]
    assert found["a"] == {
        "steps_per_s": 1000.0, "busy_steps_per_s": 600.0, "busy_share": 0.6, "acting_steps_per_s": 1250.0,
        "share_of_acting": 0.8, "bound_steps_per_s": pytest.approx(1600.0), "share_of_bound": pytest.approx(0.625),
    }  # fmt: skip


def test_dreams_are_compared_with_the_matrix_product_and_with_those_of_one_process() -> None:
    spreads = _spreads(**{"dream generation": [1000.0], "dream busy": [500.0], "dreams": [4.0], "peak_gflops": [8.0]})
    wanted = {
        "steps_per_s": 1000.0, "busy_steps_per_s": 500.0, "busy_share": 0.5, "dreams_per_s": 4.0,
        "bound_steps_per_s": 2000.0, "share_of_bound": 0.5,
    }  # fmt: skip
    assert evolution.figures(spreads, ["dream"], [], 4e6)["worlds"]["dream"] == wanted
    spreads |= _spreads(**{"dreams alone": [2.5]})
    found = evolution.figures(spreads, ["dream"], [], 4e6)["worlds"]["dream"]
    assert found == wanted | {"alone_dreams_per_s": 2.5, "scaling": 1.6}


def test_the_share_of_the_peak_counts_three_forward_passes() -> None:
    encoder, decoder = vision.forward_flops(32)
    assert encoder == pytest.approx(29.56e6, rel=1e-3) and decoder == pytest.approx(48.00e6, rel=1e-3)
    flops = vision.training_flops(32)
    assert flops == pytest.approx(233e6, rel=2e-3)
    spreads = _spreads(train_frames_per_s=[2000.0], peak_gflops=[900.0], plain_frames_per_s=[400.0], encode_32=[9.0])
    figures = vision.figures(spreads, flops)
    assert figures["share_of_peak"] == pytest.approx(2000 * flops / 900e9)
    assert figures["speedup"] == pytest.approx(5.0)
    assert figures["encode_frames_per_s"] == {"32": 9.0}


def test_counted_operations_are_those_that_pytorch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    plain, images = PlainVAE(32), torch.zeros(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter:
        plain(images, torch.zeros(1, 32))
    assert counter.get_total_flops() == sum(vision.forward_flops(32))


def test_acting_writes_its_figures_and_what_they_were_measured_with(tiny: None, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert main(["bench", "acting", "--repeats", "2", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert list(figures["backends"]) == ["fast", "envpool", "gymnasium"]
    encoder = figures["encoder_frames_per_s"]
    for name, one in figures["backends"].items():
        assert one.keys() == ACTING_KEYS and min(one["microseconds"].values()) > 0
        simulator = one["simulator_steps_per_s"]
        assert one["bound_steps_per_s"] == pytest.approx(simulator * encoder / (simulator + encoder))
        assert one["share_of_bound"] == pytest.approx(one["acting_steps_per_s"] / one["bound_steps_per_s"])
        assert len(figures["repeats"][f"{name} simulator"]["values"]) == figures["repeats"]["count"] == 2
    fastest = figures["backends"]["fast"]["acting_steps_per_s"]
    assert figures["speedup"] == pytest.approx(fastest / figures["plain_steps_per_s"])
    assert set(figures["rows_ended"].values()) == {0} and figures["rows"] == 3
    assert figures["steps"] == {"fast": 4, "envpool": 4, "gymnasium": 1}
    assert {"cpu", "cores", "torch_threads", "dtype", "versions"} <= figures["machine"].keys()
    assert {"worldmodels", "torch", "envpool", "box2d"} <= figures["machine"]["versions"].keys()


@pytest.mark.parametrize("task, worlds", [("car-racing", ["fast", "envpool", "gymnasium", "dream"]),
                                          ("bin-packing", ["native", "dream"])])  # fmt: skip
def test_evolution_is_measured_in_every_world_of_a_task_and_in_its_dreams(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, worlds: list[str]
) -> None:
    path = tmp_path / "figures.json"
    assert main(["bench", "evolution", "--task", task, "--repeats", "1", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert list(figures["worlds"]) == worlds and figures["population"] == 2
    for name, one in figures["worlds"].items():
        assert one["busy_share"] == pytest.approx(one["busy_steps_per_s"] / one["steps_per_s"])
        assert one["share_of_bound"] == pytest.approx(one["steps_per_s"] / one["bound_steps_per_s"])
        assert ("share_of_acting" in one) == (name != "dream") == ("dreams_per_s" not in one)
    if figures["machine"]["cores"] > 1:
        dream = figures["worlds"]["dream"]
        assert dream["scaling"] == pytest.approx(dream["dreams_per_s"] / dream["alone_dreams_per_s"])
    shown = capsys.readouterr().out
    assert "a generation of 2 candidates" in shown and "whole dreams" in shown


def test_vision_writes_its_figures(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert main(["bench", "vision", "--repeats", "1", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures.keys() >= VISION_KEYS
    assert figures["encode_frames_per_s"].keys() == {"1", "32", "128"}
    share = figures["train_frames_per_s"] * figures["mflop_per_frame"] / figures["peak_gflops"] / 1e3
    assert figures["share_of_peak"] == pytest.approx(share)
    shown = capsys.readouterr()
    assert "share of the peak" in shown.out
    assert "vision:" not in shown.err, "the training inside the measurement reports its progress"


@pytest.mark.parametrize("task", ["car-racing", "take-cover"])
def test_dreaming_is_measured_beside_the_matrix_product_and_the_plain_loop(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dream_bench, "SIZES", dream_bench.Sizes((1, 64), 640, 5))
    path = tmp_path / "figures.json"
    options = ["bench", "dream", "--task", task, "--repeats", "1", "--json", str(path)]
    assert main(options) == 0
    figures = json.loads(path.read_text())
    assert figures["dream_steps_per_s"].keys() == figures["share_of_peak"].keys() == {"1", "64"}
    for count, rate in figures["dream_steps_per_s"].items():
        share = rate * figures["mflop_per_step"] / figures["peak_gflops"] / 1e3
        assert figures["share_of_peak"][count] == pytest.approx(share)
        assert figures["speedup"][count] == pytest.approx(rate / figures["plain_steps_per_s"])
    # What the paper's sizes cost (parameters of the gates and heads, and of C), two operations each.
    assert figures["mflop_per_step"] == pytest.approx({"car-racing": 0.844, "take-cover": 3.36}[task], rel=0.01)
    assert "of the peak" in capsys.readouterr().out


def test_unknown_names_and_counts_are_one_line_that_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"unknown benchmark 'speed'; choose from acting, evolution, vision, memory"):
        run_bench("speed", "car-racing", 1)
    with pytest.raises(UserError, match="car-racing"):
        run_bench("acting", "chess", 1)
    with pytest.raises(UserError, match="at least 1 repeat"):
        run_bench("acting", "car-racing", 0)


def test_stock_layers_compute_what_v_computes() -> None:
    torch.manual_seed(0)
    tuned, plain = ConvVAE(8), PlainVAE(8)
    plain.load_state_dict(tuned.state_dict())
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    images, noise = plain_images(frames), torch.randn(2, 8)
    assert images.is_contiguous() and images.dtype is torch.float32
    for mine, theirs in zip(plain(images, noise), tuned(images, noise), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("hidden", [0, 6])
def test_the_plain_loop_drives_as_the_agent_drives(hidden: int) -> None:
    agent = _agent()
    if hidden:
        agent = untrained_agent(agent.task, agent.vision, agent.memory, agent.inputs.names, hidden)
        agent.controller = torch.randn(len(agent.controller), generator=torch.Generator().manual_seed(1)) / 3
    plain, policy = PlainAgent(agent, agent.controller), agent.policy(1)
    stream = np.random.default_rng(3)
    for _ in range(4):
        observation = stream.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        # The agent's V may run in bfloat16.
        np.testing.assert_allclose(plain.act(observation), policy.act(observation[None])[0], atol=0.02)


def test_the_plain_loop_chooses_what_the_mask_admits() -> None:
    agent = agent_for(get_task("bin-packing"))
    plain, env = PlainAgent(agent, agent.controller), make_envs(agent.task, 1, "native")
    (observation,), info = env.reset(seed=[5])
    for _ in range(30):
        action = plain.act(observation)
        assert info["action_mask"][0, action]
        (observation,), _, _, _, info = env.step(action[None])


def test_rows_that_end_are_neither_stepped_nor_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(CarRacing):
        max_steps = 3

    short = _agent()
    short.task = Short()
    sizes = acting.Sizes(rows=2, steps=6, batches=1, plain_steps=1)
    with contextlib.closing(acting.Acting(short, sizes, LocalExecutor())) as measured:
        assert measured.rows_ended["envpool"] == 2
        assert len(measured._recorded["envpool"].actions) == 3
        assert measured.acting("envpool")["envpool acting"] > 0
        assert measured.simulator("envpool")["envpool simulator"] > 0


def test_without_faster_backends_gymnasium_is_measured_and_the_notes_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_faster(task: Any, num_envs: int, backend: str) -> Any:
        if backend != "gymnasium":
            raise UserError(f"the backend {backend} needs the package {backend}")
        return make_envs(task, num_envs, backend)

    monkeypatch.setattr(measure, "make_envs", without_faster)
    sizes = acting.Sizes(rows=1, steps=20, batches=1, plain_steps=1)
    with contextlib.closing(acting.Acting(_agent(), sizes, LocalExecutor())) as measured:
        assert measured.backends == ["gymnasium"] and measured.steps == {"gymnasium": 2}
        assert measured.notes == [
            "the backend fast needs the package fast; it is not measured",
            "the backend envpool needs the package envpool; it is not measured",
        ]
    assert measure.fastest_backend(get_task("car-racing")) == (
        "gymnasium",
        [f"the backend {name} needs the package {name}; measured on gymnasium instead" for name in ("fast", "envpool")],
    )


def test_where_no_backend_works_the_last_reason_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(task: Any, num_envs: int, backend: str) -> Any:
        raise UserError(f"{backend} is missing")

    monkeypatch.setattr(measure, "make_envs", nothing)
    for search in (measure.fastest_backend, measure.working_backends):
        with pytest.raises(UserError, match="gymnasium is missing"):
            search(get_task("car-racing"))


def test_without_the_stock_environment_the_rest_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, **options: Any) -> Any:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", missing)
    sizes = acting.Sizes(rows=2, steps=2, batches=1, plain_steps=1)
    with contextlib.closing(acting.Acting(_agent(), sizes, LocalExecutor())) as measured:
        spreads = measured.run(1)
    assert "plain" not in spreads and "fast acting" in spreads
    assert "Box2D is not installed" in measured.notes[0]


def _agent() -> Agent:
    return agent_for(get_task("car-racing"))


# --- a world alone -------------------------------------------------------------------------------------------

SMALL = world.Sizes(world.Size(4, 5), world.Size(8, 20), world.Size(3, 4), world.Size(2, 3), plain_steps=7)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "SIZES", SMALL)


def test_a_world_with_rules_is_measured_with_pictures_and_with_what_they_see(
    small: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_bench("world", "bin-packing", 2)
    assert (found["task"], found["backend"], found["rule"]) == ("bin-packing", "native", "best-fit")
    assert found["repeats"]["count"] == 2 and len(found["repeats"]["plain_steps_per_s"]["values"]) == 2
    assert found["num_envs"] == {"": 4, "rule_": 8} and found["steps"] == {"": 5, "rule_": 20}
    for kind in ("", "rule_"):
        assert found[f"{kind}steps_per_s"] > 0
        share = found[f"{kind}steps_per_s"] / found[f"{kind}bound_steps_per_s"]
        assert found[f"{kind}share_of_bound"] == pytest.approx(share)
    assert found["speedup"] == found["steps_per_s"] / found["plain_steps_per_s"]
    assert found["threads"] == found["machine"]["cores"], "an array program runs once per core"
    assert "what best-fit sees" in capsys.readouterr().out


def test_a_world_whose_rules_see_what_agents_see_is_measured_under_the_random_policy(
    small: None, tmp_path: Path
) -> None:
    path = tmp_path / "figures.json"
    assert main(["bench", "world", "--task", "car-racing", "--repeats", "1", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert (found["backend"], found["rule"], found["threads"]) == ("fast", None, 1)
    assert found["num_envs"] == {"": 2} and found["steps"] == {"": 3}
    assert not [name for name in found if name.startswith("rule_")] and found["speedup"] > 0


def test_a_world_in_processes_is_measured_with_as_many_steps_as_are_asked_for(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stock(CarRacing):
        name = "stock"

        @property
        def worlds(self) -> Mapping[str, World]:
            return {"gymnasium": ProcessWorld("CarRacing-v3")}

    with registered(TASKS, "stock", Stock):
        found = run_bench("world", "stock", 1, steps=2)
    assert found["num_envs"] == {"": 2} and found["steps"] == {"": 2} and found["steps_per_s"] > 0


def test_the_world_replays_what_the_rule_did_in_the_same_episodes(small: None) -> None:
    measured = world._World(get_task("bin-packing"), SMALL, None)
    try:
        for kind in ("", "rule_"):
            size, (env, *_) = measured.sizes[kind], measured._fresh(kind)
            mask = env.action_mask()  # type: ignore[attr-defined]
            for actions in measured._actions[0][: size.steps, : size.num_envs]:
                assert mask[np.arange(size.num_envs), actions].all(), "the rule never chooses what does not fit"
                *_, info = env.step(actions)
                mask = info["action_mask"]
    finally:
        measured.close()


def test_a_world_that_people_cannot_play_has_no_plain_loop(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CarRacing, "playing", None)
    found = run_bench("world", "car-racing", 1)
    assert found["plain_steps_per_s"] is None and found["speedup"] is None
    assert "no plain loop: car-racing cannot be watched or played" in found["notes"][0]


def test_a_replay_counts_the_steps_of_rows_that_have_not_ended() -> None:
    class Short(CarRacing):
        max_steps = 3

    task, recording = Short(), Recording()
    env = make_envs(task, 2, "envpool")
    rollout(task, env, task.random_policy([1, 2]), [1, 2], 9, observer=recording)
    assert len(recording.actions) == 3 and recording.observations.shape == (2, 96, 96, 3)
    env.reset(seed=[1, 2])
    assert replayed_steps(env, [*recording.actions, recording.actions[0]]) == 6
    env.close()


# --- the room as a whole -------------------------------------------------------------------------------------


def test_no_file_of_the_benchmarks_names_a_world() -> None:
    folder = Path(world.__file__).parent
    names = re.compile(r"car.?racing|doom|vizdoom|take.?cover|packing|box2d", re.IGNORECASE)
    for path in folder.glob("*.py"):
        assert not names.search(path.read_text()), path.name


def test_the_agent_of_a_world_without_a_shipped_one_has_the_standard_sizes() -> None:
    state = torch.get_rng_state()
    agent = agent_for(get_task("bin-packing-published"))
    assert torch.equal(torch.get_rng_state(), state), "measuring draws no random numbers of others"
    assert measure.kind_of(agent) == "untrained" and agent.memory.mask_head is not None
    assert measure.kind_of(_agent()) == "shipped"
    assert agent.memory.hidden_size == 256 and agent.inputs.names == ("z",) and not agent.controller.any()


def test_the_versions_are_those_of_the_worlds_own_simulators() -> None:
    cpu = torch.device("cpu")
    doom, bins = (machine(cpu, get_task(name))["versions"] for name in ("take-cover", "bin-packing"))
    assert "vizdoom" in doom and "envpool" not in doom and not {"vizdoom", "envpool"} & bins.keys()


def test_the_command_line_knows_every_benchmark() -> None:
    assert BENCHMARKS == ("acting", "evolution", "vision", "memory", "dream", "world")
