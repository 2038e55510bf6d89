"""Settings: presets, JSON and the numbers that are refused."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from worldmodels.core.errors import UserError
from worldmodels.core.settings import check, from_json, to_json
from worldmodels.dream.config import DreamConfig
from worldmodels.evolution.config import EvolutionConfig, PhaseConfig
from worldmodels.evolution.phases import phases_of, phases_of_all_rounds
from worldmodels.memory.config import MemoryConfig
from worldmodels.run import presets
from worldmodels.run.config import Config, EvaluateConfig, later_round
from worldmodels.run.presets import preset, preset_names, resolved
from worldmodels.tasks import TASKS, get_task, task_names
from worldmodels.tasks.car_racing.task import CarRacing
from worldmodels.vision.config import VisionConfig
from worlds import Scripted

QUICK = preset("quick")
ALL = [(task, name) for task in task_names() for name in preset_names(task)]


@pytest.mark.parametrize(("task", "name"), ALL)
def test_a_configuration_survives_json(task: str, name: str) -> None:
    config = resolved(preset(name, task), get_task(task))
    text = json.dumps(to_json(config), allow_nan=False)
    assert from_json(Config, json.loads(text)) == config


def test_changed_values_survive_json_with_their_types() -> None:
    config = replace(
        QUICK,
        seed=77,
        vision=replace(QUICK.vision, epochs=0.25),
        controller=replace(QUICK.controller, inputs=("z",)),
        dream=replace(QUICK.dream, start_steps=(0, 300)),
        evolution=replace(QUICK.evolution, phases={"mine": PhaseConfig(world="dream")}, sequence=("mine",)),
    )
    again = from_json(Config, json.loads(json.dumps(to_json(config))))
    assert again == config and isinstance(again.controller.inputs, tuple)
    assert again.evolution.phases["mine"] == PhaseConfig(world="dream")


@pytest.mark.parametrize(("task", "name"), ALL)
def test_presets_are_named_after_themselves_and_make_sense(task: str, name: str) -> None:
    config = preset(name, task)
    assert (config.task, config.preset) == (task, name)
    check(config)
    assert phases_of(config.evolution)
    check(resolved(config, get_task(task)))


@pytest.mark.parametrize("task", task_names())
def test_every_world_has_a_preset_to_try_one_to_show_and_the_papers(task: str) -> None:
    assert {"quick", "standard", "paper"} <= set(preset_names(task))


def test_the_paper_preset_has_the_papers_sizes() -> None:
    paper = preset("paper")
    assert paper.collect.episodes + paper.collect.reference_episodes == 10_000
    assert (paper.vision.latent_size, paper.memory.hidden_size, paper.memory.mixtures) == (32, 256, 5)
    ((_, phase),) = phases_of(paper.evolution)
    assert (phase.population, phase.episodes, paper.memory.length) == (64, 16, 999)
    assert (paper.evolution.strategy, paper.evolution.components, phase.max_steps) == ("cma", 0, 0)


def test_the_paper_preset_makes_no_environments_of_envpool_which_never_returns_their_memory() -> None:
    paper = preset("paper", "car-racing")
    assert "envpool" not in (paper.collect.backend, paper.evolution.backend)


def test_an_unknown_preset_is_refused_with_a_hint() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'standart'.*did you mean 'standard'"):
        preset("standart")


def test_what_is_left_to_the_task_is_filled_in_and_what_is_said_stays() -> None:
    task = get_task("car-racing")
    filled = resolved(Config(), task)
    assert filled.collect.backend == filled.evolution.backend == task.backends[0]
    assert filled.controller.inputs == task.inputs and filled.dream.start_steps == task.start_steps
    said = replace(filled, dream=DreamConfig(start_steps=(5,)), collect=replace(filled.collect, backend="gymnasium"))
    assert resolved(said, task) == said


def test_a_preset_extends_another_and_a_phase_is_like_another_but_for_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "presets.toml").write_text(
        """
        [first]
        vision = { epochs = 2.0, batch = 8 }
        [first.evolution.phases.real]
        sigma = 0.5
        episodes = 7
        [first.evolution.phases.second]
        like = "real"
        sigma = 0.25
        [last]
        extends = "first"
        vision = { epochs = 3.0 }
        [last.evolution]
        sequence = ["real", "second", "third"]
        [last.evolution.phases.real]
        episodes = 8
        [last.evolution.phases.third]
        like = "second"
        episodes = 9
        """
    )
    monkeypatch.setattr(presets, "_path", lambda task: tmp_path / "presets.toml")
    assert preset_names("car-racing") == ["first", "last"]
    last = preset("last")
    assert (last.vision.epochs, last.vision.batch, last.vision.lr) == (3.0, 8, VisionConfig().lr)
    found = [(name, phase.sigma, phase.episodes) for name, phase in phases_of(last.evolution)]
    assert found == [("real", 0.5, 8), ("second", 0.25, 8), ("third", 0.25, 9)]
    assert preset("first").evolution.phases["second"].episodes == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("standard = 3", "the preset 'standard' is not a table"),
        ("[standard.evolution.phases]\nreal = 3", "the phase 'real' is not a table"),
        ("[standard.evolution]\nphases = 3", "--evolution.phases must be a table, got 3"),
        ("[standard.evolution.phases.'../x']", "names in --evolution.phases must consist of letters"),
        ("[standard", "presets.toml is not valid TOML"),
        ("[standard]\nvision = { epoch = 1.0 }", "there is no setting vision.epoch; did you mean 'epochs'?"),
        ("[standard]\nvision = { epochs = 0 }", "--vision.epochs must be positive, got 0"),
        ("[standard]\nextends = 'basic'", "unknown preset 'basic'"),
        ("[standard]\nextends = 'standard'", "the preset 'standard' refers back to itself through 'extends'"),
        ("[standard.evolution.phases.real]\nlike = 'unreal'", "unknown phase 'unreal'"),
        ("[standard.evolution.phases.real]\nlike = 'real'", "the phase 'real' refers back to itself through 'like'"),
    ],
)
def test_a_file_of_presets_that_is_wrong_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worlds of other packages bring such files."""
    (tmp_path / "presets.toml").write_text(text)
    monkeypatch.setattr(presets, "_path", lambda task: tmp_path / "presets.toml")
    with pytest.raises(UserError) as refusal:
        preset("standard")
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_world_without_presets_of_its_own_has_those_of_its_class() -> None:
    class Another(CarRacing):
        name = "another"

    TASKS.register("another", Another)
    try:
        assert preset_names("another") == preset_names("car-racing")
        assert replace(preset("quick", "another"), task="car-racing") == QUICK
    finally:
        TASKS.unregister("another")


@pytest.mark.parametrize("module", ["worlds", "__main__", "builtins"])
def test_a_world_that_brings_no_presets_has_modest_ones(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "__module__", module)
    TASKS.register("scripted", Scripted)
    try:
        assert preset_names("scripted") == ["standard", "quick"]
        assert preset("quick", "scripted").collect.reference_episodes == 0
    finally:
        TASKS.unregister("scripted")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content | {"colour": "blue"}, "there is no setting colour"),
        (lambda content: content | {"vision": content["vision"] | {"colour": "blue"}}, "no setting vision.colour"),
        (lambda content: content | {"vision": [1, 2]}, "--vision must be a table"),
        (lambda content: content | {"controller": {"inputs": 3}}, "--controller.inputs must be some of z, h, c, got 3"),
        (lambda content: content | {"controller": {"inputs": ["z", "q"]}}, "some of z, h, c, got z q"),
        (lambda content: content | {"controller": {"inputs": ["z", "z"]}}, "once at most, got z z"),
        (lambda content: content | {"seed": "one"}, "--seed must be a whole number, got 'one'"),
        (lambda content: content | {"seed": True}, "--seed must be a whole number, got True"),
        (lambda content: content | {"memory": content["memory"] | {"steps": -5}}, "--memory.steps must be at least 1"),
        (lambda content: content | {"memory": content["memory"] | {"lr": [1e-3]}}, "--memory.lr must be a number"),
        (lambda content: content | {"evolution": {"phases": []}}, "--evolution.phases must be"),
        (lambda content: content | {"evolution": {"phases": {"real": 3}}}, "--evolution.phases.real must be a table"),
        (lambda content: content | {"evolution": {"phases": {"real": {"world": "moon"}}}}, "one of real, dream"),
        (lambda content: content | {"evolution": {"sequence": "real"}}, "--evolution.sequence must be texts"),
        (lambda content: [content], "settings must be a table"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spoil: Any, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        from_json(Config, spoil(to_json(preset("standard"))))
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def one_phase(**settings: Any) -> EvolutionConfig:
    return EvolutionConfig(phases={"real": PhaseConfig(**settings)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(rounds=0), "--rounds must be at least 1 and at most 1000, got 0"),
        (Config(seed=-1), "--seed must be at least 0, got -1"),
        (Config(vision=VisionConfig(batch=-3)), "--vision.batch must be at least 1, got -3"),
        (Config(vision=VisionConfig(lr=float("nan"))), "--vision.lr must be positive, got nan"),
        (Config(vision=VisionConfig(epochs=float("inf"))), "--vision.epochs must be positive, got inf"),
        (Config(vision=VisionConfig(kl_tolerance=-1)), "--vision.kl-tolerance must be at least 0, got -1"),
        (Config(memory=MemoryConfig(hidden_size=0)), "--memory.hidden-size must be at least 1, got 0"),
        (Config(evolution=one_phase(patience=-1)), "--evolution.phases.real.patience must be at least 0, got -1"),
        (Config(evolution=one_phase(sigma=0.0)), "--evolution.phases.real.sigma must be positive, got 0"),
        (Config(evolution=one_phase(sigma_decay=1.5)), "sigma-decay must be positive and at most 1, got 1.5"),
        (Config(evolution=one_phase(world="moon")), "--evolution.phases.real.world must be one of real, dream"),
        (
            Config(dream=DreamConfig(start_steps=(0, -5))),
            "--dream.start-steps must be whole numbers that are at least 0, got 0 -5",
        ),
        (Config(dream=DreamConfig(termination="never")), "--dream.termination must be one of sample, threshold"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_the_name_of_their_option(config: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(config)


def test_zero_means_off_where_the_help_says_so() -> None:
    check(Config(seed=0, evolution=one_phase(patience=0, max_steps=0, max_steps_growth=0, warm_start_sigma=0)))
    check(Config(evolution=EvolutionConfig(components=0), evaluate=EvaluateConfig(steps=0)))


def numbers_of(config: Any, where: str = "") -> list[str]:
    """Paths of all whole numbers and fractions in a configuration."""
    found = []
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            found += numbers_of(value, f"{where}{item.name}.")
        elif isinstance(value, dict):
            for name, one in value.items():
                found += numbers_of(one, f"{where}{item.name}.{name}.")
        elif isinstance(value, int | float):
            found.append(f"{where}{item.name}")
    return found


@pytest.mark.parametrize("path", numbers_of(Config()))
def test_no_number_may_be_negative(path: str) -> None:
    content = to_json(Config())
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = -1
    with pytest.raises(UserError, match=f"--{path}".replace("_", "-")):
        from_json(Config, content)


def test_settings_cannot_be_changed_in_passing() -> None:
    with pytest.raises(FrozenInstanceError):
        QUICK.seed = 3  # type: ignore[misc]


def test_importing_the_settings_imports_nothing_heavy() -> None:
    code = "import sys, worldmodels.run.config; print({'torch', 'numpy', 'gymnasium', 'tyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_carracings_c_goes_on_along_its_own_inputs_as_soon_as_it_drives() -> None:
    for name in ("quick", "standard"):
        (_, first), (_, own), (_, last) = phases_of(preset(name).evolution)
        assert (first.subspace, own.subspace, last.subspace) == ("recorded", "visited", "visited")
        assert first.max_steps > 0
        for phase in (own, last):
            assert (phase.max_steps, phase.max_steps_growth, phase.sigma_hold) == (0, 0, 0)
        assert first.sigma > own.sigma > last.sigma and last.generations > own.generations


def test_carracings_c_begins_several_times_in_the_first_round_alone() -> None:
    assert (preset("quick").evolution.starts, preset("standard").evolution.starts) == (3, 6)
    assert later_round(preset("standard")).evolution.starts == 1
    anew = preset("standard").with_settings(**{"evolution.carry": "none"})
    assert later_round(anew).evolution.starts == 6
    assert preset("dream").evolution.starts == preset("paper").evolution.starts == 1


def test_finetuning_means_small_steps_on_twice_the_tracks_for_whole_episodes() -> None:
    phases = preset("standard").evolution.phases
    usual, last = phases["real"], phases["finetune"]
    assert last.generations > 0 and last.max_steps == last.max_steps_growth == 0
    assert last.episodes == 2 * usual.episodes and last.sigma < usual.sigma and last.subspace == "visited"
    assert last.hard_episode_fraction > usual.hard_episode_fraction
    # The score that finetuning must beat was taken on as many tracks.
    assert last.validation_episodes == usual.validation_episodes and last.validate_every <= last.generations


@pytest.mark.parametrize("task", ["car-racing", "take-cover", "bin-packing"])
def test_a_c_that_comes_from_dreams_goes_on_over_whole_episodes_in_smaller_steps(task: str) -> None:
    phases = preset("standard", task).evolution.phases
    usual, going_on = phases["real"], phases["real-after-dream"]
    assert (going_on.max_steps, going_on.max_steps_growth, going_on.sigma_hold) == (0, 0, 0)
    assert going_on.sigma == usual.sigma / 2 and going_on.generations >= usual.generations


def test_later_rounds_add_a_share_of_what_the_first_one_took() -> None:
    first = preset("standard", "take-cover")
    later = later_round(replace(first, later_round_share=0.25))
    assert later.collect.episodes == first.collect.episodes / 4 and later.collect.reference_episodes == 0
    assert later.vision.epochs == first.vision.epochs / 4 and later.memory.steps == first.memory.steps / 4
    assert (later.controller, later.evaluate, later.dream) == (first.controller, first.evaluate, first.dream)
    assert later.evolution == first.evolution
    same = QUICK.with_settings(later_round_share=1.0, **{"evolution.later_sequence": [], "evolution.starts": 1})
    assert later_round(same) == same


def test_later_rounds_may_run_other_phases() -> None:
    first = preset("standard", "car-racing").with_settings(**{"evolution.later_sequence": ["finetune"]})
    assert [name for name, _ in phases_of(first.evolution)] == ["real", "visited", "refine"]
    assert [name for name, _ in phases_of(later_round(first).evolution)] == ["finetune"]
    both = first.with_settings(**{"evolution.later_sequence": ["finetune", "dream"]})
    assert [name for name, _ in phases_of_all_rounds(both.evolution)] == [
        "real",
        "visited",
        "refine",
        "finetune",
        "dream",
    ]
    for names, message in ((["polish"], "later-sequence must name phases of this preset"), (["real"] * 2, "each once")):
        wrong = first.with_settings(**{"evolution.later_sequence": names}).evolution
        for phases in (phases_of, phases_of_all_rounds):
            with pytest.raises(UserError, match=message):
                phases(wrong)


def test_doom_takes_larger_steps_where_evolution_goes_on_from_the_c_of_the_last_round() -> None:
    ((_, phase),) = phases_of(preset("standard", "take-cover").evolution)
    assert phase.warm_start_sigma > phase.sigma > 0
