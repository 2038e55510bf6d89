"""Everything that goes wrong for people: one clear line, an exit status, and nothing lost that was there before."""

import json
import math
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import STAGES, TINY, call, command, copy_of, digests, empty, flip, garble, refused, snapshot, truncate
from worldmodels.agent import AGENT_FILE
from worldmodels.core import halves
from worldmodels.core.files import load_tensors, save_tensors, write_json
from worldmodels.core.fit import Schedule

pytestmark = pytest.mark.usefixtures("short_world")

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, to break."""
    return copy_of(finished, tmp_path / "run")


def rewrite_settings(run: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what a run says that it was made from."""
    content = json.loads((run / "run.json").read_bytes())
    del content["checksum"]
    change(content)
    write_json(run / "run.json", content, checksum=True)


# A run that is not the one the command is about.

MISMATCHES = {
    "another preset": (
        ["--preset", "quick"],
        ["--preset standard, not --preset quick --env.action_repeat 2", "to continue it: worldmodels train --run"],
    ),
    "another seed": (["--seed", "2"], ["--seed 1, not 2", "to continue it", "train --from", "--seed 2"]),
    "another size of V": (["--vision.latent-size", "9"], ["--vision.latent-size 8, not 9"]),
    "another sight of C": (["--controller.inputs", "z"], ["--controller.inputs"]),
    "other phases": (["--phases", "dream"], ["--evolution.sequence real finetune, not dream"]),
    "other steps of a phase": (
        ["--evolution.phases.finetune.sigma", "0.5"],
        ["--evolution.phases.finetune.sigma 0.04, not 0.5", "worldmodels train --from"],
    ),
    "another strategy": (["--evolution.strategy", "pepg"], ["--evolution.strategy sep-cma, not pepg"]),
    "other episodes": (["--collect.episodes", "5"], ["--collect.episodes 4, not 5"]),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_a_run_made_with_other_settings_is_refused(case: str, run: Path, capsys: Capture) -> None:
    options, words = MISMATCHES[case]
    before = snapshot(run)
    refused(call(capsys, "train", "car-racing", "--run", run, *options), str(run), *words)
    assert snapshot(run) == before


def test_a_run_of_another_task_is_refused(run: Path, capsys: Capture) -> None:
    rewrite_settings(run, lambda content: content.update(task="take-cover"))
    before = snapshot(run)
    refused(
        call(capsys, "train", "car-racing", "--run", run),
        f"{run} is a run of task take-cover, not car-racing; use another --run",
    )
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda phases: phases.update(sleep=phases["dream"]), "--evolution.phases.sleep.world dream, not nothing"),
        (lambda phases: phases.pop("dream"), "--evolution.phases.dream.world nothing, not dream"),
    ],
)
def test_a_run_with_other_phases_than_its_preset_has_now_is_refused(
    change: Callable[[dict[str, Any]], Any], message: str, run: Path, capsys: Capture
) -> None:
    rewrite_settings(run, lambda content: change(content["evolution"]["phases"]))
    refused(call(capsys, "train", "car-racing", "--preset", "standard", "--run", run, *TINY), message)


@pytest.mark.parametrize("verb", ["train", "vision", "ablate", "evaluate", "probe"])
@pytest.mark.parametrize(("layout", "age"), [(None, "older"), (1, "older"), (3, "other"), ("2", "other")])
def test_a_run_of_another_version_is_refused_in_one_line(
    layout: Any, age: str, verb: str, run: Path, capsys: Capture
) -> None:
    rewrite_settings(run, lambda content: content.pop("layout") and layout and content.update(layout=layout))
    before = snapshot(run)
    where = [run] if verb == "probe" else ["car-racing", "--run", run]
    refused(call(capsys, verb, *where), f"{run} was made by an {age} version of worldmodels", "use another --run")
    assert snapshot(run) == before


def test_settings_that_this_version_does_not_know_are_refused(run: Path, capsys: Capture) -> None:
    rewrite_settings(run, lambda content: content["vision"].update(wings=2))
    refused(
        call(capsys, "train", "car-racing", "--run", run),
        f"the settings in {run / 'run.json'} do not fit this version of worldmodels",
        "there is no setting vision.wings",
    )


def test_stages_without_the_settings_they_were_made_with_are_refused(run: Path, capsys: Capture) -> None:
    (run / "run.json").unlink()
    refused(call(capsys, "train", "car-racing", "--run", run, *TINY), str(run), "no run.json", "use another --run")


def test_work_begun_from_other_inputs_is_not_continued(run: Path, capsys: Capture) -> None:
    vision = run / "round-1" / "vision"
    done = json.loads((vision / "done.json").read_bytes())
    (vision / "done.json").unlink()
    inputs = done["inputs"] | {"episodes": ["those of yesterday"]}
    write_json(vision / "begun.json", {"inputs": inputs}, checksum=True)
    refused(call(capsys, "train", "car-racing", "--run", run), str(vision), "other inputs", "changed: episodes")


# Damage. Every file that a later stage trusts: what reads it, and how it may be broken.

DAMAGES: list[Callable[[Path], None]] = [truncate, flip, empty, garble]
PARTS = {
    "frames": ("vision", "episodes/shard-00000.zarr/frames/c/0/0/0/0"),
    "rewards": ("vision", "episodes/shard-00001.zarr/rewards/c/0"),
    "description of episodes": ("vision", "episodes/shard-00002.zarr/lengths/zarr.json"),
    "V": ("encode", "vision/vision.safetensors"),
    "latents": ("memory", "latents/latents-00001.safetensors"),
    "M": ("controller", "memory/memory.safetensors"),
    "C": ("evaluate", "controller/agent.safetensors"),
    "first phase of evolution": ("controller", "controller/1-real/evolution.safetensors"),
    "second phase of evolution": ("controller", "controller/2-finetune/evolution.safetensors"),
    "note of a finished stage": ("encode", "vision/done.json"),
    "scores": ("", "evaluation/evaluation.json"),
    "settings": ("", "../run.json"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_artefact_is_named_and_the_others_stay(
    part: str, damage: Callable[[Path], None], finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    verb, name = PARTS[part]
    run = copy_of(finished, tmp_path / "run", until=verb)
    broken = (run / "round-1" / name).resolve()
    if "phase" in part:
        shutil.copytree(finished / "round-1" / "controller", broken.parents[1])
        for file in ("done.json", "agent.safetensors"):
            (broken.parents[1] / file).unlink()
    damage(broken)
    before = snapshot(run)
    named = next((folder for folder in broken.parents if folder.suffix == ".zarr"), broken)
    line = refused(call(capsys, verb or "train", "car-racing", "--run", run), str(named))
    assert "delete it" in line or "restore it" in line
    assert before.items() <= snapshot(run).items()


def test_what_the_line_about_a_damaged_artefact_says_repairs_the_run(
    run: Path, finished: Path, capsys: Capture
) -> None:
    shard = run / "round-1" / "episodes" / "shard-00001.zarr"
    flip(shard / "actions" / "c" / "0" / "0")
    shutil.rmtree(run / "round-1" / "vision")
    refused(call(capsys, "train", "car-racing", "--run", run), str(shard), "delete it and run: worldmodels collect")
    shutil.rmtree(shard)
    outcome = call(capsys, "train", "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    kept = [name for name in STAGES if name != "evaluate"]
    assert digests(run, kept) == digests(finished, kept)


def test_the_file_of_one_run_in_another_is_noticed(run: Path, capsys: Capture) -> None:
    """It is whole, but it is not what the stage wrote."""
    vision = run / "round-1" / "vision" / "vision.safetensors"
    tensors, meta = load_tensors(vision)
    save_tensors(vision, {name: value + 1e-3 for name, value in tensors.items()}, meta)
    shutil.rmtree(run / "round-1" / "latents")
    refused(call(capsys, "encode", "car-racing", "--run", run), str(vision), "was replaced", "worldmodels vision")


UNFINISHED = {
    "checkpoint of V": ("vision", "checkpoint.safetensors"),
    "checkpoint of M": ("memory", "checkpoint.safetensors"),
    "first phase of evolution": ("controller", "1-real/evolution.safetensors"),
    "latents": ("encode", "latents-00000.safetensors"),
}


@pytest.mark.parametrize("part", UNFINISHED)
def test_unfinished_work_that_is_another_kind_of_file_is_refused(
    part: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    """The file is whole and of this package, but holds something else."""
    stage, name = UNFINISHED[part]
    run = copy_of(finished, tmp_path / "run", until=stage)
    folder = run / "round-1" / STAGES[stage]
    (folder / name).parent.mkdir(parents=True)
    save_tensors(folder / name, {"something": torch.zeros(3)}, {"step": 1})
    refused(call(capsys, "train", "car-racing", "--run", run), str(folder / name), "delete")


BOUND = {
    "V": ("vision", "vision", "checkpoint.safetensors", lambda content: content["vision"].update(lr=1e-3)),
    "M": ("memory", "memory", "checkpoint.safetensors", lambda content: content["memory"].update(lr=1e-2)),
    "first phase of evolution": (
        "controller",
        "controller/1-real",
        "evolution.safetensors",
        lambda content: content["evolution"]["phases"]["real"].update(sigma=0.2),
    ),
    "second phase of evolution": (
        "controller",
        "controller/2-finetune",
        "evolution.safetensors",
        lambda content: content["evolution"]["phases"]["real"].update(sigma=0.2),
    ),
}


@pytest.mark.parametrize("part", BOUND)
def test_the_checkpoint_of_another_experiment_is_refused(
    part: str, finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    """It is whole and of the same sizes, but it was made from other settings."""
    stage, folder, name, change = BOUND[part]
    other, run = (copy_of(finished, tmp_path / one, until=stage) for one in ("other", "run"))
    rewrite_settings(other, change)
    path = f"round-1/{folder}/{name}"
    stop = {"at": "os:replace", "match": path.removesuffix(".safetensors"), "after": True, "do": "SIGKILL"}
    assert command(stage, "car-racing", "--run", other, faults=[stop]).code == -signal.SIGKILL
    (run / path).parent.mkdir(parents=True)
    shutil.copy(other / path, run / path)
    refused(call(capsys, stage, "car-racing", "--run", run), str(run / path), "delete it")
    (run / path).unlink()
    assert call(capsys, stage, "car-racing", "--run", run).code == 0
    assert digests(run, [stage]) == digests(finished, [stage])


def test_a_damaged_note_of_the_time_costs_only_the_time(finished: Path, tmp_path: Path, capsys: Capture) -> None:
    run = copy_of(finished, tmp_path / "run", until="memory")
    folder = run / "round-1" / "memory"
    folder.mkdir()
    (folder / "elapsed.json").write_text('{"seconds": "a while"}')
    (folder / "metrics.csv").write_text("step,nll\n1,")
    outcome = call(capsys, "memory", "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    assert digests(run, ["memory"]) == digests(finished, ["memory"])


# Agents.


def rewritten(agent: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """Change what an agent's file holds, with a digest that fits."""
    tensors, meta = load_tensors(agent)
    change(tensors, meta)
    save_tensors(agent, tensors, meta)


def nan_in(name: str) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
        tensors[name].view(-1)[0] = math.nan

    return change


AGENTS: dict[str, tuple[Callable[[dict[str, torch.Tensor], dict[str, Any]], Any], list[str]]] = {
    "NaN in V": (nan_in("vision.enc_mu.bias"), ["vision.enc_mu.bias holds NaN"]),
    "NaN in M": (nan_in("memory.lstm.weight_hh_l0"), ["memory.lstm.weight_hh_l0 holds NaN"]),
    "NaN in C": (nan_in("controller"), ["controller holds NaN"]),
    "weights of V that overflow": (
        lambda tensors, meta: tensors.update(
            {"vision.enc_mu.weight": tensors["vision.enc_mu.weight"].float() * 0 + 3e38}
        ),
        ["the outputs of V are not finite"],
    ),
    "weights of M that overflow": (
        lambda tensors, meta: tensors.update(
            {
                "memory.mixture_head.bias": 3e38
                * torch.tensor([-1.0, 1.0]).repeat(tensors["memory.mixture_head.bias"].numel() // 2)
            }
        ),
        ["the outputs of M are not finite"],
    ),
    "weights of C that overflow": (
        lambda tensors, meta: tensors["controller"].fill_(3e38),
        ["the outputs of C are not finite, because its weights are too large"],
    ),
    "other shapes": (
        lambda tensors, meta: tensors.update({"vision.enc_mu.bias": torch.zeros(9)}),
        ["expected (8,) as vision.enc_mu.bias, got (9,)"],
    ),
    "a shorter controller": (
        lambda tensors, meta: tensors.update(controller=tensors["controller"][1:]),
        ["controller parameters", "got (1, 74)"],
    ),
    "a missing tensor": (
        lambda tensors, meta: tensors.pop("memory.mixture_head.bias"),
        ["as memory.mixture_head.bias, got nothing"],
    ),
    "a tensor too many": (
        lambda tensors, meta: tensors.update({"vision.enc_conv9.bias": torch.zeros(1)}),
        ["expected nothing as vision.enc_conv9.bias"],
    ),
    "no controller": (lambda tensors, meta: tensors.pop("controller"), ["lacks 'controller'"]),
    "sizes of a giant": (lambda tensors, meta: meta["memory"].update(hidden_size=10**7), ["expected (40000000, 11)"]),
    "an infinite size": (lambda tensors, meta: meta["memory"].update(hidden_size=math.inf), ["infinity"]),
    "sizes of a giant V": (
        lambda tensors, meta: meta["vision"].update(latent_size=10**7),
        ["expected (10000000, 1024) as vision.enc_mu.weight"],
    ),
    "a newer format": (lambda tensors, meta: meta.update(format=3), ["its format is 3", "update worldmodels"]),
    "an older format": (
        lambda tensors, meta: meta.update(format=1),
        ["its format is 1", "made by an older version; train it again"],
    ),
    "a format that is no number": (lambda tensors, meta: meta.update(format="two"), ["its format is two"]),
    "an unknown V": (lambda tensors, meta: meta["vision"].update(name="eagle"), ["unknown vision model 'eagle'"]),
    "a V that is no table": (lambda tensors, meta: meta.update(vision="conv-vae"), [AGENT_FILE]),
    "sizes that are no table": (lambda tensors, meta: meta.update(memory=3), [AGENT_FILE]),
    "no sizes": (lambda tensors, meta: meta["memory"].pop("mixtures"), ["lacks 'mixtures'"]),
    "inputs that are no list": (lambda tensors, meta: meta.update(inputs=3), [AGENT_FILE]),
    "an unknown task": (lambda tensors, meta: meta.update(task="chess"), ["unknown task 'chess'"]),
    "an unknown sight": (lambda tensors, meta: meta.update(inputs=["z", "eyes"]), ["z, h and c"]),
    "no format": (lambda tensors, meta: meta.pop("format"), ["lacks 'format'", AGENT_FILE]),
}


@pytest.mark.parametrize("case", AGENTS)
def test_an_agent_that_cannot_act_is_refused(case: str, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    change, words = AGENTS[case]
    agent = tmp_path / AGENT_FILE
    shutil.copy(finished / "agent" / AGENT_FILE, agent)
    rewritten(agent, change)
    refused(call(capsys, "evaluate", "car-racing", "--agent", tmp_path, "--episodes", "1"), str(agent), *words)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("verb", ["evaluate", "record"])
def test_a_damaged_agent_is_refused(
    verb: str, damage: Callable[[Path], None], finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    agent = tmp_path / AGENT_FILE
    shutil.copy(finished / "agent" / AGENT_FILE, agent)
    damage(agent)
    out = ["--out", tmp_path / "film.gif"] if verb == "record" else []
    refused(call(capsys, verb, "car-racing", "--agent", agent, *out), str(agent), "damaged")
    assert not (tmp_path / "film.gif").exists()


def test_a_safetensors_file_cut_or_flipped_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(5, dtype=torch.int64)}, {"step": 3})
    whole = path.read_bytes()
    for size in range(0, len(whole), 3):
        path.write_bytes(whole[:size])
        assert_unreadable(path)
    for bit in range(0, 8 * len(whole), 5):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert_unreadable(path)
    path.write_bytes(whole)
    assert load_tensors(path)[1] == {"step": 3}


def assert_unreadable(path: Path) -> None:
    from worldmodels.core.errors import UserError

    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)


@pytest.mark.parametrize("what", ["a directory without an agent", "an unfinished run"])
def test_a_place_without_an_agent_says_so(what: str, finished: Path, tmp_path: Path, capsys: Capture) -> None:
    place = tmp_path / "empty"
    if what == "an unfinished run":
        copy_of(finished, place, until="memory")
    else:
        place.mkdir()
    refused(call(capsys, "evaluate", "car-racing", "--agent", place), str(place), "holds no agent", AGENT_FILE)


# What is not installed.


@pytest.mark.parametrize("verb", ["train", "collect"])
@pytest.mark.parametrize(("package", "extra"), [("envpool", "envpool"), ("Box2D", "car"), ("pygame", "car")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    verb: str, package: str, extra: str, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    run = tmp_path / "run"
    options = [*TINY, "--collect.backend", "envpool" if package == "envpool" else "gymnasium"]
    outcome = call(capsys, verb, "car-racing", "--run", run, *options)
    refused(outcome, package, f'pip install "worldmodels[{extra}]"')
    assert not list(run.rglob("shard-*"))


# Losses that explode.


@pytest.mark.parametrize(("stage", "loss"), [("vision", "vae_loss"), ("memory", "memory_loss")])
def test_a_loss_that_is_not_a_number_stops_the_training_and_keeps_the_last_weights(
    stage: str, loss: str, finished: Path, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    import worldmodels.memory.train
    import worldmodels.vision.conv_vae
    import worldmodels.vision.train

    trains, module = {
        "vision": (worldmodels.vision.train, worldmodels.vision.conv_vae),
        "memory": (worldmodels.memory.train, worldmodels.memory.train),
    }[stage]
    checkpoint_every_step(monkeypatch, trains)
    original, calls = getattr(module, loss), iter(range(100))
    calls_per_step = {"vision": 1, "memory": halves.PARTS}[stage]

    def poisoned(*arguments: Any) -> Any:
        total, parts = original(*arguments)
        return total * (math.nan if next(calls) == 2 * calls_per_step else 1.0), parts

    run = copy_of(finished, tmp_path / "run", until=stage)
    monkeypatch.setattr(module, loss, poisoned)
    before = snapshot(run)
    refused(call(capsys, stage, "car-racing", "--run", run), f"{stage}: the loss became nan at step 2", "--" + stage)
    folder = run / "round-1" / stage
    tensors, meta = load_tensors(folder / "checkpoint.safetensors")
    assert meta["step"] == 2 and all(value.isfinite().all() for value in tensors.values())
    assert before.items() <= snapshot(run).items() and not (folder / f"{stage}.safetensors").exists()
    monkeypatch.setattr(module, loss, original)
    outcome = call(capsys, stage, "car-racing", "--run", run)
    assert outcome.code == 0 and digests(run, [stage]) == digests(finished, [stage]), outcome.err


def test_weights_that_explode_while_the_loss_does_not_are_never_saved(
    finished: Path, tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    import worldmodels.memory.train as module

    original = module.memory_loss

    def steep(prediction: Any, *rest: Any) -> Any:
        total, parts = original(prediction, *rest)
        return total + 0 * (prediction.reward * 0).sum().sqrt(), parts  # the slope of a root at zero is infinite

    checkpoint_every_step(monkeypatch, module)
    monkeypatch.setattr(module, "memory_loss", steep)
    run = copy_of(finished, tmp_path / "run", until="memory")
    refused(
        call(capsys, "memory", "car-racing", "--run", run),
        "memory: step 0 made weights that are not finite",
        "--memory.lr",
    )
    assert not list((run / "round-1" / "memory").glob("*.safetensors"))


def checkpoint_every_step(monkeypatch: Patch, module: Any) -> None:
    def schedule(*arguments: Any, **named: Any) -> Schedule:
        return Schedule(*arguments, **named, checkpoint_seconds=0.0)

    monkeypatch.setattr(module, "Schedule", schedule)
