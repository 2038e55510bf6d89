"""Ablations: equal rounds, phases, budgets and episodes, so that a score says what the missing part is worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cases import tiny
from worldmodels.agent import load_agent
from worldmodels.cli.main import main
from worldmodels.core.files import load_tensors
from worldmodels.evolution.phases import phases_of
from worldmodels.run.presets import preset
from worldmodels.run.variants import difference, evolution_of, label, variants_of
from worldmodels.tasks.bin_packing.task import BinPacking

VARIANTS = ("v-only", "untrained-m", "mask-only", "dream-only")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", ["car-racing", "take-cover", "bin-packing"])
def test_an_ablation_has_the_phases_and_the_budget_of_the_full_agent(task: str, variant: str) -> None:
    whole = preset("standard", task).evolution
    ablated = evolution_of(whole, variant)
    assert ablated.sequence == whole.sequence and ablated.strategy == whole.strategy
    for (name, phase), (other, mine) in zip(phases_of(whole), phases_of(ablated), strict=True):
        kept = {"world": phase.world}
        if variant == "dream-only" and phase.world == "real":
            dream = whole.phases["dream"]
            assert (mine.max_steps, mine.max_steps_growth) == (dream.max_steps, dream.max_steps_growth)
            kept |= {"max_steps": phase.max_steps, "max_steps_growth": phase.max_steps_growth}
        assert name == other and replace(mine, **kept) == phase
    worlds = {phase.world for _, phase in phases_of(ablated)}
    if variant == "untrained-m":
        assert worlds == {"real"}, "an untrained M cannot dream"
    elif variant == "dream-only":
        assert worlds == {"dream"}
    else:
        assert ablated == whole


def test_an_ablation_that_is_evolved_elsewhere_says_where_and_why() -> None:
    doom, racing = preset("standard", "take-cover"), preset("standard", "car-racing")
    assert variants_of(doom) == ["v-only", "untrained-m"]
    assert variants_of(racing) == ["v-only", "untrained-m", "dream-only"]
    assert label(doom, "untrained-m") == "untrained-m, evolved in the real world"
    assert "an untrained M cannot dream, so C is evolved in the real world" in difference(doom, "untrained-m")
    assert label(racing, "untrained-m") == "untrained-m" and "cannot dream" not in difference(racing, "untrained-m")
    assert label(racing, "dream-only") == "dream-only, evolved in dreams"
    assert label(doom, "v-only") == "v-only"


def test_ablations_of_a_run_with_two_rounds_go_through_both_as_the_full_agent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(BinPacking, "max_steps", 20)
    less = [*tiny("real", "dream"), "--collect.num-envs", "4", "--device", "cpu", "--rounds", "2"]
    evolved = ["--controller.inputs", "z", "h", "--phases", "dream", "real", "--evaluate.steps", "15"]
    where = ["bin-packing", "--preset", "quick", "--run", str(tmp_path), *less, *evolved]
    assert main(["train", *where]) == 0
    before = (tmp_path / "round-2" / "controller" / "done.json").read_bytes()
    assert main(["ablate", *where]) == 0
    assert (tmp_path / "round-2" / "controller" / "done.json").read_bytes() == before

    rows = json.loads((tmp_path / "ablation.json").read_bytes())
    assert list(rows) == ["full", *VARIANTS, "random"]
    assert len({tuple(row["seeds"]) for row in rows.values()}) == 1
    budgets = [rows[name]["evolution"] for name in ("full", *VARIANTS)]
    assert [budget["rounds"] for budget in budgets] == [2] * 5
    for name, budget in zip(("full", *VARIANTS), budgets, strict=True):
        worlds = [phase.pop("world") for phase in budget["phases"]]
        for phase in budget["phases"]:  # the preset says how long dreams are
            assert phase.pop("max_steps_growth") == (0 if phase["name"] == "dream" or name == "dream-only" else 16)
        assert worlds == {"untrained-m": ["real"] * 2, "dream-only": ["dream"] * 2}.get(name, ["dream", "real"])
    assert all(budget == budgets[0] for budget in budgets)
    assert all(rows[name]["differs"] for name in VARIANTS)
    said = capsys.readouterr()
    assert f"untrained-m: {rows['untrained-m']['differs']}" in said.err

    for variant in VARIANTS:
        first, second = (tmp_path / f"round-{number}" / f"controller-{variant}" for number in (1, 2))
        start = load_tensors(second / "1-dream" / "evolution.safetensors")[0]["start"]
        assert torch.equal(start.float(), load_agent(first).controller), variant
        assert not load_tensors(first / "1-dream" / "evolution.safetensors")[0]["start"].any()
    one, two = (load_agent(tmp_path / f"round-{number}" / "controller-untrained-m") for number in (1, 2))
    for name, weights in one.memory.state_dict().items():
        assert torch.equal(weights, two.memory.state_dict()[name]), "the M on which C of the round before relies"

    # Another longest episode is measured again for all of them.
    assert main(["ablate", *where[:-1], "10"]) == 0
    shorter = json.loads((tmp_path / "ablation.json").read_bytes())
    assert all(shorter[name]["returns"] != rows[name]["returns"] for name in rows)
