"""The benchmarks' figures follow from what they measured, and their baselines compute what the agent computes."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from worldmodels import commands
from worldmodels.agent import Agent
from worldmodels.bench import acting, bin_packing, run_bench, vision
from worldmodels.bench import dream as dream_bench
from worldmodels.bench.measure import Spread, agent_for, interleaved
from worldmodels.bench.plain import PlainAgent, PlainVAE, plain_images
from worldmodels.core.errors import UserError
from worldmodels.tasks import get_task
from worldmodels.tasks.car_racing.task import CarRacing
from worldmodels.vision.conv_vae import ConvVAE

ACTING_KEYS = {
    "env_steps_per_s", "encoder_frames_per_s", "bound_steps_per_s", "acting_steps_per_s", "share_of_bound",
    "plain_steps_per_s", "speedup",
}  # fmt: skip
VISION_KEYS = {
    "train_frames_per_s", "peak_gflops", "dtype", "share_of_peak", "plain_frames_per_s", "speedup",
    "encode_frames_per_s",
}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small = acting.Sizes(environments=3, steps=4, batches=2, plain_steps=3)
    monkeypatch.setattr(acting, "SIZES", small)
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
        env_steps_per_s=[1.0, 4000.0, 9999.0],
        encoder_frames_per_s=[12000.0],
        acting_steps_per_s=[2700.0, 2000.0, 2800.0],
        plain_steps_per_s=[180.0],
        acting_with_reset_steps_per_s=[2500.0],
        reset_seconds=[0.5],
        ms_simulator=[32.0],
        ms_policy=[14.0],
        ms_frames=[1.0],
        ms_loop=[0.5],
    )
    figures = acting.figures(spreads, environments=120)
    assert figures["bound_steps_per_s"] == pytest.approx(3000.0)
    assert figures["share_of_bound"] == pytest.approx(0.9)
    assert figures["speedup"] == pytest.approx(15.0)
    parts = figures["milliseconds_per_lockstep"]
    assert (parts["simulator_alone"], parts["encoder_alone"]) == pytest.approx((30.0, 10.0))
    assert parts["memory_and_controllers"] == pytest.approx(14.0 - 10.0 - 1.0)


def test_without_a_plain_loop_there_is_no_speedup() -> None:
    rates = ("env_steps_per_s", "encoder_frames_per_s", "acting_steps_per_s", "acting_with_reset_steps_per_s")
    times = ("reset_seconds", "ms_simulator", "ms_policy", "ms_frames", "ms_loop")
    figures = acting.figures(_spreads(**{name: [100.0] for name in (*rates, *times)}), 10)
    assert figures["plain_steps_per_s"] is None and figures["speedup"] is None


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
    assert commands.bench("bench", ["acting", "--repeats", "2", "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    assert figures.keys() >= ACTING_KEYS
    simulator, encoder = figures["env_steps_per_s"], figures["encoder_frames_per_s"]
    assert figures["bound_steps_per_s"] == pytest.approx(simulator * encoder / (simulator + encoder))
    assert figures["share_of_bound"] == pytest.approx(figures["acting_steps_per_s"] / figures["bound_steps_per_s"])
    assert figures["speedup"] == pytest.approx(figures["acting_steps_per_s"] / figures["plain_steps_per_s"])
    assert figures["rows_ended"] == 0 and figures["environments"] == 3
    assert figures["repeats"]["count"] == 2 and len(figures["repeats"]["env_steps_per_s"]["values"]) == 2
    assert {"cpu", "cores", "torch_threads", "dtype", "versions"} <= figures["machine"].keys()


def test_vision_writes_its_figures(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figures.json"
    assert commands.bench("bench", ["vision", "--repeats", "1", "--json", str(path)]) == 0
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
    options = ["dream", "--task", task, "--repeats", "1", "--json", str(path)]
    assert commands.bench("bench", options) == 0
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
    with pytest.raises(UserError, match=r"unknown benchmark 'speed'; choose from acting, vision, dream"):
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


def test_the_plain_loop_drives_as_the_agent_drives() -> None:
    agent = _agent()
    plain, policy = PlainAgent(agent, agent.controller), agent.policy(1)
    stream = np.random.default_rng(3)
    for _ in range(4):
        observation = stream.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        # The agent's V may run in bfloat16.
        np.testing.assert_allclose(plain.act(observation), policy.act(observation[None])[0], atol=0.02)


def test_rows_that_end_are_neither_stepped_nor_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(CarRacing):
        max_steps = 3

    monkeypatch.setattr(acting, "interleaved", lambda measures, repeats: {})
    short = _agent()
    short.task = Short()
    measured = acting._Acting(short, acting.Sizes(environments=2, steps=6, batches=1, plain_steps=1))
    assert measured.rows_ended == 2
    assert len(measured._actions) == 3
    assert measured.acting()["acting_steps_per_s"] > 0
    assert measured.simulator()["env_steps_per_s"] > 0


def test_without_envpool_gymnasium_is_measured_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    make = CarRacing._make

    def without_envpool(self: CarRacing, num_envs: int, backend: str) -> Any:
        if backend == "envpool":
            raise UserError("the backend envpool needs the package envpool")
        return make(self, num_envs, backend)

    monkeypatch.setattr(CarRacing, "_make", without_envpool)
    measured = acting._Acting(_agent(), acting.Sizes(environments=1, steps=20, batches=1, plain_steps=1))
    assert measured.backend == "gymnasium" and measured.sizes.steps == 2
    assert measured.notes == ["the backend envpool needs the package envpool; measured on gymnasium instead"]


def test_without_the_stock_environment_the_rest_is_still_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", missing)
    measured = acting._Acting(_agent(), acting.Sizes(environments=2, steps=2, batches=1, plain_steps=1))
    spreads = measured.run(1)
    assert "plain_steps_per_s" not in spreads and "acting_steps_per_s" in spreads
    assert "Box2D is not installed" in measured.notes[0]


def _agent() -> Agent:
    return agent_for(get_task("car-racing"))


def test_bin_packing_is_measured_beside_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = bin_packing.Sizes(instances=8, pictured=4, steps=20, pictured_steps=5, plain_steps=50)
    monkeypatch.setattr(bin_packing, "SIZES", sizes)
    found = run_bench("bin-packing", "bin-packing", 2)
    assert found["task"] == "bin-packing" and found["repeats"]["count"] == 2
    for name in ("placements_per_s", "frames_per_s", "bound_frames_per_s", "plain_placements_per_s"):
        assert found[name] > 0
    assert found["speedup"] == found["placements_per_s"] / found["plain_placements_per_s"]
    assert found["share_of_bound"] == found["frames_per_s"] / found["bound_frames_per_s"]
