"""Ablations: equal rounds, phases, budgets and episodes, so that a score says what the missing part is worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cases import tiny
from worldmodels.agent import load_agent
from worldmodels.cli.main import main
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors
from worldmodels.evolution.phases import phases_of
from worldmodels.run import variants
from worldmodels.run.names import VARIANTS
from worldmodels.run.presets import preset
from worldmodels.run.variants import chosen_variants, difference, evolution_of, hidden_of, inputs_of, label, variants_of
from worldmodels.tasks.bin_packing.task import BinPacking


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


def test_other_phases_of_later_rounds_are_ablated_too() -> None:
    words = {"evolution.sequence": ["real"], "evolution.later_sequence": ["dream"], "rounds": 2}
    racing = preset("standard", "car-racing").with_settings(**words)
    shown = variants.budget(racing, "untrained-m")
    assert [(one["name"], one["world"]) for one in shown["phases"] + shown["later_phases"]] == [
        ("real", "real"), ("dream", "real"),
    ]  # fmt: skip
    assert "cannot dream" in difference(racing, "untrained-m")
    assert [one["world"] for one in variants.budget(racing, "dream-only")["phases"]] == ["dream"]
    assert "later_phases" not in variants.budget(preset("quick", "car-racing"), "dream-only")


def test_an_ablation_that_is_evolved_elsewhere_says_where_and_why() -> None:
    doom, racing = preset("standard", "take-cover"), preset("standard", "car-racing")
    assert variants_of(doom) == ["v-only", "v-only-hidden", "z-h", "untrained-m"]
    assert variants_of(racing) == ["v-only", "v-only-hidden", "z-c-h", "untrained-m", "dream-only"]
    assert label(doom, "untrained-m") == "untrained-m, evolved in the real world"
    assert "an untrained M cannot dream, so C is evolved in the real world" in difference(doom, "untrained-m")
    assert label(racing, "untrained-m") == "untrained-m" and "cannot dream" not in difference(racing, "untrained-m")
    assert label(racing, "dream-only") == "dream-only, evolved in dreams"
    assert label(doom, "v-only") == "v-only"


def test_the_papers_table_is_ablated() -> None:
    """V alone with a linear map and with 40 units, and the other inputs where the run's own C does not have them."""
    racing = preset("standard", "car-racing")
    seen = {name: (inputs_of(racing, name), hidden_of(racing, name)) for name in variants_of(racing)}
    assert seen["v-only"] == (("z",), 0) and seen["v-only-hidden"] == (("z",), 40)
    assert seen["z-c-h"] == (("z", "c", "h"), 0) and seen["untrained-m"] == (("z", "h"), 0)
    assert "through a hidden layer of 40 units" in difference(racing, "v-only-hidden")
    assert difference(racing, "z-c-h").startswith("C sees z, c and h;")
    assert difference(racing, "v-only").startswith("C sees z alone, without M's state;")


def test_a_run_whose_own_c_has_a_hidden_layer_is_ablated_with_it_and_v_also_without() -> None:
    wide = preset("standard", "car-racing").with_settings(**{"controller.hidden": 12})
    assert variants_of(wide) == ["v-only", "v-only-hidden", "z-c-h", "untrained-m", "dream-only"]
    units = {name: hidden_of(wide, name) for name in ("", *variants_of(wide), "mask-only")}
    assert units.pop("v-only") == units.pop("mask-only") == 0 and set(units.values()) == {12}
    assert difference(wide, "v-only").startswith("C sees z alone, without M's state, by a linear map;")
    packing = preset("quick", "bin-packing")
    assert variants_of(packing) == ["v-only-hidden", "z-h", "z-c-h", "mask-only", "dream-only"]
    assert "v-only" in variants_of(packing.with_settings(**{"controller.hidden": 40}))
    assert "v-only-hidden" not in variants_of(packing.with_settings(**{"controller.hidden": 40}))


def test_ablations_are_chosen_by_name_and_one_that_does_not_apply_is_refused_with_the_reason() -> None:
    racing, packing = preset("standard", "car-racing"), preset("quick", "bin-packing")
    assert chosen_variants(racing, ()) == variants_of(racing)
    assert chosen_variants(racing, ("untrained-m", "v-only")) == ["v-only", "untrained-m"]
    for config, name, reason in (
        (racing, "mask-only", "car-racing has no action masks"),
        (racing, "z-h", "the run's own C has the same inputs and hidden units"),
        (packing, "untrained-m", "the run's own C does not see M's state"),
        (preset("dream", "car-racing"), "dream-only", "the run's own C is evolved in dreams alone"),
    ):
        with pytest.raises(UserError, match=f"{name} does not apply: {reason}; those that apply to this run: v-only"):
            chosen_variants(config, (name,))
    with pytest.raises(UserError, match="unknown ablation 'blind'; choose from v-only, v-only-hidden"):
        chosen_variants(racing, ("blind",))


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

    applicable = [name for name in VARIANTS if name != "z-h"]
    rows = json.loads((tmp_path / "ablation.json").read_bytes())
    assert list(rows) == ["full", *applicable, "random"]
    assert len({tuple(row["seeds"]) for row in rows.values()}) == 1
    budgets = [rows[name]["evolution"] for name in ("full", *applicable)]
    assert [budget["rounds"] for budget in budgets] == [2] * 7
    for name, budget in zip(("full", *applicable), budgets, strict=True):
        worlds = [phase.pop("world") for phase in budget["phases"]]
        for phase in budget["phases"]:  # the preset says how long dreams are
            assert phase.pop("max_steps_growth") == (0 if phase["name"] == "dream" or name == "dream-only" else 16)
        assert worlds == {"untrained-m": ["real"] * 2, "dream-only": ["dream"] * 2}.get(name, ["dream", "real"])
    assert all(budget == budgets[0] for budget in budgets)
    assert all(rows[name]["differs"] for name in applicable)
    said = capsys.readouterr()
    assert f"untrained-m: {rows['untrained-m']['differs']}" in said.err

    for variant in applicable:
        first, second = (tmp_path / f"round-{number}" / f"controller-{variant}" for number in (1, 2))
        start = load_tensors(second / "1-dream" / "evolution.safetensors")[0]["start"]
        assert torch.equal(start.float(), load_agent(first).controller), variant
        begun = load_tensors(first / "1-dream" / "evolution.safetensors")[0]["start"]
        assert not load_agent(first).layout.acts(begun), "no control differs from zero"
    one, two = (load_agent(tmp_path / f"round-{number}" / "controller-untrained-m") for number in (1, 2))
    for name, weights in one.memory.state_dict().items():
        assert torch.equal(weights, two.memory.state_dict()[name]), "the M on which C of the round before relies"

    hidden = load_agent(tmp_path / "round-2" / "controller-v-only-hidden")
    assert hidden.inputs.names == ("z",) and hidden.layout.hidden == 40

    # Another longest episode is measured again for all that are chosen.
    assert main(["ablate", *where[:-1], "10", "--variants", "untrained-m", "v-only-hidden"]) == 0
    shorter = json.loads((tmp_path / "ablation.json").read_bytes())
    assert list(shorter) == ["full", "v-only-hidden", "untrained-m", "random"]
    assert all(shorter[name]["returns"] != rows[name]["returns"] for name in shorter)
