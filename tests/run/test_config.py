"""Settings: presets, JSON and the numbers that are refused."""

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import Any

import pytest

from worldmodels.core.errors import UserError
from worldmodels.core.settings import check, from_json, to_json
from worldmodels.evolution.config import PhaseConfig
from worldmodels.memory.config import MemoryConfig
from worldmodels.run.config import Config, later_round
from worldmodels.run.presets import preset, preset_names, resolved
from worldmodels.tasks import get_task, task_names
from worldmodels.vision.config import VisionConfig

QUICK = preset("quick")
ALL = [(task, name) for task in task_names() for name in preset_names(task)]


@pytest.mark.parametrize(("task", "name"), ALL)
def test_a_configuration_survives_json(task: str, name: str) -> None:
    text = json.dumps(to_json(PRESETS[task][name]), allow_nan=False)
    assert from_json(json.loads(text)) == PRESETS[task][name]


def test_changed_values_survive_json_with_their_types() -> None:
    config = replace(
        QUICK,
        seed=77,
        vision=replace(QUICK.vision, epochs=0.25),
        controller=replace(QUICK.controller, features=("z",), diagonal=-1),
        dream=replace(QUICK.dream, begins=(0, 300)),
    )
    again = from_json(json.loads(json.dumps(to_json(config))))
    assert again == config and isinstance(again.controller.features, tuple)


@pytest.mark.parametrize(("task", "name"), ALL)
def test_presets_are_named_after_themselves_and_make_sense(task: str, name: str) -> None:
    config = preset(name, task)
    assert (config.task, config.preset) == (task, name)
    check(config)


def test_the_paper_preset_has_the_papers_sizes() -> None:
    paper = PRESETS["car-racing"]["paper"]
    assert paper.collect.episodes + paper.collect.reference_episodes == 10_000
    assert (paper.vision.latent_size, paper.memory.hidden_size, paper.memory.mixtures) == (32, 256, 5)
    assert (paper.controller.population, paper.controller.episodes, paper.memory.length) == (64, 16, 999)


def test_an_unknown_preset_is_refused_with_a_hint() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'standart'.*did you mean 'standard'"):
        preset("standart")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content | {"colour": "blue"},
        lambda content: content | {"vision": content["vision"] | {"colour": "blue"}},
        lambda content: content | {"vision": [1, 2]},
        lambda content: content | {"controller": content["controller"] | {"features": 3}},
        lambda content: content | {"controller": content["controller"] | {"features": ["z", "q"]}},
        lambda content: content | {"seed": "one"},
        lambda content: content | {"memory": content["memory"] | {"steps": -5}},
        lambda content: [content],
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spoil: Any) -> None:
    with pytest.raises(UserError, match="does not fit this version of worldmodels") as refusal:
        from_json(spoil(to_json(PRESETS["car-racing"]["standard"])))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(rounds=0), "--rounds must be positive, got 0"),
        (Config(seed=-1), "--seed must be at least 0, got -1"),
        (Config(vision=VisionConfig(batch=-3)), "--vision.batch must be positive, got -3"),
        (Config(vision=VisionConfig(lr=float("nan"))), "--vision.lr must be positive, got nan"),
        (Config(vision=VisionConfig(epochs=float("inf"))), "--vision.epochs must be positive, got inf"),
        (Config(vision=VisionConfig(kl_tolerance=-1)), "--vision.kl-tolerance must be at least 0, got -1"),
        (Config(memory=MemoryConfig(hidden_size=0)), "--memory.hidden-size must be positive, got 0"),
        (Config(controller=ControllerConfig(patience=-1)), "--controller.patience must be at least 0, got -1"),
        (Config(controller=ControllerConfig(sigma=0.0)), "--controller.sigma must be positive, got 0"),
        (Config(dream=DreamConfig(begins=(0, -5))), "--dream.begins must be whole numbers of at least 0, got 0 -5"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_the_name_of_their_option(config: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(config)


def test_zero_means_off_where_the_help_says_so() -> None:
    check(Config(seed=0, controller=ControllerConfig(patience=0, horizon_growth=0, diagonal=-1)))


def numbers_of(config: Any, where: str = "") -> list[str]:
    """Paths of all whole numbers and fractions in a configuration."""
    found = []
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            found += numbers_of(value, f"{where}{item.name}.")
        elif isinstance(value, int | float):
            found.append(f"{where}{item.name}")
    return found


@pytest.mark.parametrize("path", [path for path in numbers_of(Config()) if not path.endswith("diagonal")])
def test_no_number_may_be_negative(path: str) -> None:
    content = to_json(Config())
    *parents, last = path.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = -1
    with pytest.raises(UserError, match=f"--{path}".replace("_", "-")):
        from_json(content)


def test_settings_cannot_be_changed_in_passing() -> None:
    with pytest.raises(FrozenInstanceError):
        QUICK.seed = 3  # type: ignore[misc]


def test_importing_the_settings_imports_nothing_heavy() -> None:
    code = "import sys, worldmodels.run.config; print({'torch', 'numpy', 'gymnasium', 'tyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_polishing_means_small_steps_on_twice_the_tracks_for_whole_episodes() -> None:
    base = preset("standard").controller
    last = polishing(base, 1000)
    assert last.generations == base.polish > 0 and last.polish == 0 and last.horizon == 1000
    assert last.episodes == 2 * base.episodes and last.sigma < base.sigma and last.revisit > base.revisit
    # The score that polishing must beat was taken on the same tracks.
    assert last.validation_episodes == base.validation_episodes and last.validate_every <= last.generations


def test_a_c_that_comes_from_dreams_goes_on_over_whole_episodes_in_smaller_steps() -> None:
    usual = preset("standard").controller
    going_on = after_dreams(usual, 1000)
    assert (going_on.horizon, going_on.horizon_growth) == (1000, 0) and going_on.sigma == usual.sigma / 2
    assert going_on.generations == usual.generations


def test_later_rounds_add_a_share_of_what_the_first_one_took() -> None:
    first = preset("standard", "take-cover")
    later = in_a_later_round(replace(first, later=0.25))
    assert later.collect.episodes == first.collect.episodes / 4 and later.collect.reference_episodes == 0
    assert later.vision.epochs == first.vision.epochs / 4 and later.memory.steps == first.memory.steps / 4
    assert (later.controller, later.evaluate) == (first.controller, first.evaluate)
    assert later.dream == replace(first.dream, sigma=first.dream.later_sigma)
    assert in_a_later_round(replace(QUICK, later=1.0)) == replace(QUICK, later=1.0)
