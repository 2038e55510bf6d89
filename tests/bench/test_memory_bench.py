"""The benchmark of M's training: its figures follow from what it measured, and its baseline computes M's loss."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from worldmodels.bench import memory as bench
from worldmodels.bench.measure import Spread
from worldmodels.bench.memory import Sizes, figures, following_flops, made_up_latents, training_flops
from worldmodels.bench.plain import plain_memory_loss
from worldmodels.cli.main import main
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.train import MemoryLoss, SequenceSampler
from worldmodels.run.config import Config
from worldmodels.run.presets import preset
from worldmodels.tasks import get_task

CPU = torch.device("cpu")


def spreads(**values: float) -> dict[str, Spread]:
    return {name: Spread((value,)) for name, value in values.items()}


MEASURED = spreads(
    train_transitions_per_s=1000.0,
    peak_gflops=50.0,
    busy_transitions_per_s=650.0,
    plain_transitions_per_s=400.0,
    **{"share backward": 0.5, "share lstm": 0.5},
)


def test_the_share_of_the_peak_counts_the_burn_in_where_there_is_one() -> None:
    found = figures(MEASURED, 20e6, 0.0)
    assert found["share_of_peak"] == pytest.approx(1000 * 20e6 / 50e9)
    assert (found["busy_share"], found["speedup"]) == pytest.approx((0.65, 2.5))
    assert found["shares"] == {"lstm": 0.5, "backward": 0.5} and "alone_share_of_peak" not in found
    found = figures(MEASURED | spreads(alone_transitions_per_s=1200.0), 20e6, 5e6)
    assert found["share_of_peak"] == pytest.approx(1000 * 25e6 / 50e9)
    assert found["alone_share_of_peak"] == pytest.approx(1200 * 20e6 / 50e9)
    assert found["speedup"] == pytest.approx(3.0), "the stock layers have no burn-in"


@pytest.mark.parametrize("options", [{}, {"reward": True, "end": True, "clock": 9}, {"hit": True, "mask_size": 4}])
def test_counted_operations_are_those_that_pytorch_counts(options: dict[str, Any]) -> None:
    memory = MDNRNN(6, 3, 8, 2, **options)
    batch, time = 2, 5
    z, actions = torch.randn(batch, time, 6), torch.randn(batch, time, 3)
    # Dropout masks of ones make M compute with products that PyTorch counts; the first state gets a gradient as others.
    state, mask = (torch.zeros(batch, 8, requires_grad=True), torch.zeros(batch, 8)), torch.ones(batch, 14)
    with FlopCounterMode(display=False) as counter:
        prediction = memory.scored(memory.hidden_states(z, actions, state, mask), torch.randn(batch, time, 6))
        outputs = [output for output in prediction if output is not None]
        if memory.mask_head is not None:
            outputs.append(memory.mask_logits(z))
        sum(output.sum() for output in outputs).backward()
    assert counter.get_total_flops() == batch * time * training_flops(memory)
    with FlopCounterMode(display=False) as counter:
        memory.follow(z, actions, torch.tensor([time] * batch), mask)
    assert counter.get_total_flops() == batch * time * following_flops(memory)


@pytest.mark.parametrize("task", ["car-racing", "take-cover", "bin-packing"])
def test_the_stock_layers_have_the_loss_of_training(task: str) -> None:
    world = get_task(task)
    heads = world.predicts_reward, world.predicts_end, world.control_size if world.masked else 0
    torch.manual_seed(0)
    memory = MDNRNN(6, world.action_size, 8, 2, *heads)
    config = MemoryConfig(batch=3, length=7)
    sampler = SequenceSampler(made_up_latents(world, 6, Sizes(episodes=4, longest=20)), 3, 7, 1)
    loss = MemoryLoss(memory, sampler, config, 1, CPU, 2.0)
    batch = next(sampler.batches(5))
    wanted, _ = loss.scored(batch, loss.hidden_states(batch, sampler.steps(5), None))
    found = plain_memory_loss(memory, *batch[0], config, 2.0, CPU)
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0)  # training may run in bfloat16


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of a small M."""

    def small(name: str, task: str, *options: Mapping[str, Any]) -> Config:
        whole = preset(name, task, *options)
        return replace(whole, memory=replace(whole.memory, hidden_size=8, batch=3, length=10))

    monkeypatch.setattr(bench, "preset", small)
    monkeypatch.setattr(bench, "SIZES", Sizes(steps=2, product=64, products=2, episodes=5, longest=40))


@pytest.mark.parametrize("task, burn_in", [("car-racing", False), ("take-cover", True), ("bin-packing", False)])
def test_memory_writes_its_figures(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, burn_in: bool
) -> None:
    path = tmp_path / "figures.json"
    assert main(["bench", "memory", "--task", task, "--repeats", "2", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    flops = found["mflop_per_transition"] + found["burn_in_mflop_per_transition"]
    share = found["train_transitions_per_s"] * flops / found["peak_gflops"] / 1e3
    assert found["share_of_peak"] == pytest.approx(share) and found["plain_transitions_per_s"] > 0
    assert found["busy_share"] == pytest.approx(found["busy_transitions_per_s"] / found["train_transitions_per_s"])
    assert ("alone_transitions_per_s" in found) == (found["burnt_in"] > 0) == burn_in
    assert (found["hidden_size"], found["batch"], found["length"]) == (8, 3, 10)
    assert len(found["repeats"]["train_transitions_per_s"]["values"]) == found["repeats"]["count"] == 2
    parts = {name: found["repeats"][f"share {name}"]["values"][0] for name in found["shares"]}
    assert ("burn_in" in parts) == burn_in and {"batch", "lstm", "heads", "backward", "adam"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(1) and min(parts.values()) > 0
    shown = capsys.readouterr()
    assert "share of the peak" in shown.out and ("burn-in:" in shown.out) == burn_in
    assert "memory:" not in shown.err, "the training inside the measurement reports its progress"


def test_made_up_episodes_have_all_lengths_up_to_the_longest_and_what_m_learns_from() -> None:
    latents = made_up_latents(get_task("bin-packing"), 6, Sizes(episodes=7, longest=40))
    assert (int(latents.lengths[0]), int(latents.lengths[-1])) == (4, 40) and (latents.lengths.diff() > 0).all()
    steps = int(latents.lengths.sum())
    assert len(latents.rewards) == len(latents.actions) == steps and len(latents.mu) == steps + 7
    assert latents.action_mask is not None and len(latents.action_mask) == steps + 7
    short = made_up_latents(get_task("car-racing"), 6, Sizes(episodes=3, longest=10**6))
    assert int(short.lengths.max()) == get_task("car-racing").max_steps and short.action_mask is None
