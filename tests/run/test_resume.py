"""Killed at any place, stopped by any signal: the same command goes on, and ends with the very same bytes."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import STAGES, TINY, Launched, call, command, copy_of, digests, litter, refused, snapshot
from worldmodels.core.files import load_tensors, write_json

pytestmark = pytest.mark.usefixtures("short_world")

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Point:
    """Where a process is struck, how it ends, and what must be true of the stage's folder then."""

    fault: dict[str, Any]
    code: int = KILLED
    left: Callable[[Path], bool] = lambda folder: not (folder / "done.json").exists()


def kill(at: str, match: str = "", nth: int = 1, after: bool = False) -> dict[str, Any]:
    return {"at": at, "match": match, "call": nth, "after": after, "do": "SIGKILL"}


def send(name: str, at: str, nth: int) -> dict[str, Any]:
    return {"at": at, "call": nth, "do": name}


def checkpoint_at(step: int) -> Callable[[Path], bool]:
    return lambda folder: load_tensors(folder / "checkpoint.safetensors")[1]["step"] == step


def fitness(folder: Path, phase: str) -> torch.Tensor:
    """What the generations of a phase were worth so far, (generations, population)."""
    return load_tensors(folder / phase / "evolution.safetensors")[0]["fitness"]


def generations(**counts: int) -> Callable[[Path], bool]:
    """The phases that have a checkpoint, and how many generations are in it."""
    wanted = {f"{number}-{name}": count for number, (name, count) in enumerate(counts.items(), start=1)}
    return lambda folder: (
        wanted
        == {path.parent.name: len(fitness(folder, path.parent.name)) for path in folder.glob("*/evolution.safetensors")}
    )


def holds(*names: str, **absent: str) -> Callable[[Path], bool]:
    return lambda folder: (
        all((folder / name).exists() for name in names)
        and not any((folder / name).exists() for name in (*absent.values(), "done.json"))
    )


def is_done(folder: Path) -> bool:
    return (folder / "done.json").exists()


SHARD = "shard-00000.zarr"
POINTS = {
    "collect": [
        Point(kill("worldmodels.data.episodes:EpisodeStore.write"), left=holds(no=SHARD)),
        Point(kill("os:fsync", f"/.{SHARD}.tmp", nth=3), left=holds(f".{SHARD}.tmp", no=SHARD)),
        Point(kill("os:replace", f"/{SHARD}$", after=True), left=holds(SHARD, no="shard-00001.zarr")),
        Point(send("SIGINT", "worldmodels.data.collect:Recorder.step", 5), 130, holds(SHARD, no="shard-00001.zarr")),
        Point(kill("os:replace", "episodes/done.json"), left=holds(SHARD, "shard-00001.zarr", "shard-00002.zarr")),
    ],
    "vision": [
        Point(kill("worldmodels.vision.conv_vae:vae_loss"), left=holds(no="checkpoint.safetensors")),
        Point(send("SIGINT", "worldmodels.vision.conv_vae:vae_loss", 3), 130, checkpoint_at(3)),
        Point(kill("os:fsync", ".checkpoint.safetensors"), left=checkpoint_at(3)),
        # A second Ctrl-C does not wait for the step.
        Point(send("SIGINT+SIGINT", "worldmodels.vision.conv_vae:vae_loss", 1), 130, checkpoint_at(3)),
        Point(kill("os:replace", "vision/checkpoint", nth=2, after=True), left=checkpoint_at(5)),
        Point(kill("os:replace", "vision/done.json"), left=holds("vision.safetensors", "checkpoint.safetensors")),
    ],
    "encode": [
        Point(kill("os:replace", "latents-00000", after=True), left=holds("latents-00000.safetensors")),
        Point(
            send("SIGTERM", "worldmodels.data.encode:encode_frames", 1),
            143,
            holds("latents-00001.safetensors", no="latents-00002.safetensors"),
        ),
        Point(kill("os:fsync", ".latents-00002"), left=holds(no="latents-00002.safetensors")),
        Point(kill("os:replace", "latents/done.json"), left=holds("latents-00002.safetensors")),
    ],
    "memory": [
        # Called twice a step, once for each half of the batch.
        Point(send("SIGTERM", "worldmodels.memory.train:memory_loss", 3), 143, checkpoint_at(2)),
        Point(kill("os:replace", "memory/checkpoint"), left=checkpoint_at(2)),
        Point(kill("os:replace", "memory/checkpoint", nth=2, after=True), left=checkpoint_at(4)),
        Point(kill("os:replace", "memory/done.json"), left=holds("memory.safetensors", "checkpoint.safetensors")),
    ],
    "controller": [
        Point(kill("worldmodels.agent:AgentPolicy.act", nth=3), left=generations()),
        Point(send("SIGINT", "worldmodels.agent:AgentPolicy.act", 10), 130, generations(real=1)),
        Point(kill("os:replace", "1-real/evolution", after=True), left=generations(real=2)),
        # Between two phases, while the C of the first shows what it sees.
        Point(send("SIGTERM", "worldmodels.evolution.subspace:_InputRecorder.act", 2), 143, generations(real=3)),
        Point(kill("os:replace", "2-finetune/evolution"), left=generations(real=3)),
        Point(kill("os:replace", "2-finetune/evolution", nth=2, after=True), left=generations(real=3, finetune=2)),
        Point(kill("os:replace", "controller/agent.safetensors"), left=generations(real=3, finetune=3)),
        Point(kill("os:replace", "controller/done.json"), left=holds("agent.safetensors")),
    ],
    "evaluate": [
        # Only the process itself: its workers end by themselves, and do not keep the run locked.
        Point(kill("os:replace", "partial.json", after=True) | {"do": "SIGKILL_SELF"}, left=holds("partial.json")),
        Point(send("SIGINT", "worldmodels.agent:AgentPolicy.act", 5), 130, holds("partial.json")),
        Point(kill("os:replace", "evaluation/done.json"), left=holds("evaluation.json", "partial.json")),
        Point(kill("os:replace", "evaluation/done.json", after=True), left=is_done),
    ],
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_killed_and_stopped_again_and_again_ends_with_the_same_bytes(
    stage: str, finished: Path, tmp_path: Path
) -> None:
    run = copy_of(finished, tmp_path / "run", until=stage)
    folder = run / "round-1" / STAGES[stage]
    before, cores = snapshot(run), 2 if stage == "evaluate" else 1  # on several, with workers
    for point in POINTS[stage]:
        outcome = command(stage, "car-racing", "--run", run, faults=[point.fault], cores=cores)
        assert outcome.code == point.code, (point, outcome.err)
        assert point.left(folder), (point, sorted(path.name for path in folder.iterdir()))
        if point.code > 0 and "+" not in point.fault["do"]:
            refused(outcome, "stopped", "the same command continues")
        assert before.items() <= snapshot(run).items(), "an earlier artefact changed"
    outcome = command(stage, "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    assert_same_artefacts(run, finished, stage)
    assert litter(run) == []


def assert_same_artefacts(run: Path, other: Path, last: str = "evaluate") -> None:
    """Every finished stage up to ``last`` wrote the same bytes in both runs."""
    for stage in list(STAGES)[: list(STAGES).index(last) + 1]:
        here, there = (path / "round-1" / STAGES[stage] for path in (run, other))
        if stage == "evaluate":  # its file names the run
            assert scores(run) == scores(other)
        else:
            assert digests(run, [stage]) == digests(other, [stage]), stage
        tables = [sorted(str(path.relative_to(one)) for path in one.rglob("metrics.csv")) for one in (here, there)]
        assert tables[0] == tables[1] and len(tables[0]) == (2 if stage == "controller" else 1)
        for table in tables[0]:
            assert numbers(here / table) == numbers(there / table), table
        for state in here.rglob("evolution.safetensors"):
            assert state.read_bytes() == (there / state.relative_to(here)).read_bytes()


def scores(run: Path) -> dict[str, Any]:
    content = json.loads((run / "round-1" / "evaluation" / "evaluation.json").read_bytes())
    del content["agent"], content["run"]
    return dict(content)


def numbers(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv without its speeds."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.endswith("_per_s")} for row in rows]


def test_a_run_killed_after_every_few_writes_still_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = command("train", "car-racing", "--run", run, *TINY, faults=[kill("os:replace", "run.json")])
    assert outcome.code == KILLED and not (run / "run.json").exists()
    fault, codes = kill("os:replace", nth=16, after=True), []
    while not codes or codes[-1] != 0:
        outcome = command("train", "car-racing", "--run", run, *TINY, faults=[fault])
        codes.append(outcome.code)
        assert outcome.code in (0, KILLED), outcome.err
        assert len(codes) < 30, "it does not get anywhere"
    assert len(codes) > 3
    assert_same_artefacts(run, finished)
    assert litter(run) == []
    agents = [path / "agent" / "agent.safetensors" for path in (run, finished)]
    assert agents[0].read_bytes() == agents[1].read_bytes()


def test_a_setting_that_is_said_again_in_other_words_is_the_same_setting(finished: Path, tmp_path: Path) -> None:
    """6 and 6.0, in the preset and on the command line."""
    run, fault = tmp_path / "run", kill("os:replace", "vision/checkpoint", nth=2, after=True)
    words = ("train", "car-racing", "--run", run, *TINY, "--vision.kl-tolerance", "1")
    assert command(*words, faults=[fault]).code == KILLED
    content = json.loads((run / "run.json").read_bytes())
    del content["checksum"]
    assert repr(content["vision"]["kl_tolerance"]) == "1.0"
    content["vision"]["kl_tolerance"] = 1
    write_json(run / "run.json", content, checksum=True)
    outcome = command("vision", "car-racing", "--run", run)
    assert outcome.code == 0 and "vision: continuing at" in outcome.err, outcome.err


def test_a_finished_run_does_nothing_again(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of(finished, tmp_path / "run")
    before = snapshot(run / "round-1")
    outcome = call(capsys, "train", "car-racing", "--run", run)
    assert outcome.code == 0 and outcome.err.count("already done") == len(STAGES)
    assert snapshot(run / "round-1") == before


def test_what_is_deleted_is_made_again_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run")
    parts = run / "round-1"
    shutil.rmtree(parts / "episodes" / "shard-00001.zarr")
    for name in (
        "vision/vision.safetensors",
        "latents/latents-00001.safetensors",
        "memory/memory.safetensors",
        "controller/agent.safetensors",
        "evaluation/evaluation.json",
    ):
        (parts / name).unlink()
    outcome = command("train", "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("making it again") == len(STAGES)
    assert_same_artefacts(run, finished)


def started_from(folder: Path, phase: str) -> torch.Tensor:
    """The C from which a phase started."""
    return load_tensors(folder / phase / "evolution.safetensors")[0]["start"]


def best_of(folder: Path, phase: str) -> torch.Tensor:
    """The C with which a phase ended: the mean that was best in validation, as the next phase takes it."""
    tensors, _ = load_tensors(folder / phase / "evolution.safetensors")
    return tensors["means"][tensors["scores"][:, 1].argmax()].float().double()


def test_more_generations_of_the_last_phase_go_on_from_where_it_stood(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run")
    controller = run / "round-1" / "controller"
    before, others = fitness(controller, "2-finetune"), snapshot(controller / "1-real")
    outcome = command("train", "car-racing", "--run", run, "--evolution.phases.finetune.generations", "4")
    assert outcome.code == 0, outcome.err
    after = fitness(controller, "2-finetune")
    assert len(after) == 4 and after[:3].equal(before) and snapshot(controller / "1-real") == others
    fewer = command("train", "car-racing", "--run", run, "--evolution.phases.finetune.generations", "2")
    refused(fewer, "2-finetune/evolution.safetensors", "4 generations")


def test_more_generations_of_a_phase_continue_it_and_what_follows_starts_from_what_it_reached(
    finished: Path, tmp_path: Path
) -> None:
    more = ("--evolution.phases.real.generations", "6")
    whole, run = copy_of(finished, tmp_path / "whole"), copy_of(finished, tmp_path / "run")
    folder = run / "round-1" / "controller"
    before = fitness(folder, "1-real")
    assert command("train", "car-racing", "--run", whole, *more).code == 0
    for fault, left in (
        (kill("os:replace", "1-real/evolution", nth=2), 4),
        (kill("os:replace", "1-real/evolution", nth=2, after=True), 6),
        (kill("os:replace", "2-finetune/evolution", nth=2, after=True), 6),
        (kill("os:replace", "controller/done.json"), 6),
    ):
        outcome = command("train", "car-racing", "--run", run, *more, faults=[fault])
        assert len(fitness(folder, "1-real")) == left
        # A second phase that starts from the same C as before has nothing to do anew, and so does not meet the fault.
        if outcome.code == 0 and "2-finetune" in fault["match"]:
            break
        assert outcome.code == KILLED, outcome.err
    outcome = command("train", "car-racing", "--run", run, *more)
    assert outcome.code == 0, outcome.err
    assert fitness(folder, "1-real")[:3].equal(before) and len(fitness(folder, "2-finetune")) == 3
    assert started_from(folder, "2-finetune").equal(best_of(folder, "1-real"))
    assert_same_artefacts(run, whole)
    assert litter(run) == []


def test_a_c_that_goes_from_dreams_to_the_real_world_survives_kills_in_both(finished: Path, tmp_path: Path) -> None:
    whole, run = (copy_of(finished, tmp_path / name, until="controller") for name in ("whole", "run"))
    for path in (whole, run):  # settings of a run that has not begun to evolve may be any
        content = json.loads((path / "run.json").read_bytes())
        del content["checksum"]
        content["evolution"]["sequence"] = ["dream", "finetune"]
        write_json(path / "run.json", content, checksum=True)
    assert command("train", "car-racing", "--run", whole).code == 0
    for fault in (
        kill("worldmodels.evolution.dream_fitness:_Dreaming.returns", nth=2),
        kill("os:replace", "1-dream/evolution", after=True),
        kill("os:replace", "2-finetune/evolution", after=True),
    ):
        assert command("train", "car-racing", "--run", run, faults=[fault]).code == KILLED
    outcome = command("train", "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    folder = run / "round-1" / "controller"
    assert generations(dream=3, finetune=3)(folder)
    assert started_from(folder, "2-finetune").equal(best_of(folder, "1-dream"))
    assert_same_artefacts(run, whole)
    assert litter(run) == []


def test_a_second_round_killed_now_and_then_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    whole, run = copy_of(finished, tmp_path / "whole"), copy_of(finished, tmp_path / "run")
    assert command("train", "car-racing", "--run", whole, "--rounds", "2").code == 0
    for fault in (
        kill("os:replace", f"round-2/episodes/{SHARD}$"),
        kill("os:replace", "round-2/vision/checkpoint", nth=3, after=True),
        kill("os:replace", "round-2/controller/1-finetune/evolution", nth=2, after=True),
        kill("os:replace", "round-2/controller/done.json"),
    ):
        assert command("train", "car-racing", "--run", run, "--rounds", "2", faults=[fault]).code == KILLED
    outcome = command("train", "car-racing", "--run", run, "--rounds", "2")
    assert outcome.code == 0, outcome.err
    made = [name for name in STAGES if name != "evaluate"]
    assert digests(run, made, 2) == digests(whole, made, 2)
    assert digests(run, made) == digests(finished, made)
    assert litter(run) == []


def test_a_further_m_leaves_the_first_as_it_is_and_survives_kills(finished: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    words = (*TINY, "--memory.dream-models", "1", "--phases", "dream")
    assert command("train", "car-racing", "--run", whole, *words).code == 0
    for fault in (
        kill("os:replace", "memory-2/checkpoint", nth=2, after=True),
        kill("os:replace", "memory-2/done.json"),
        kill("os:replace", "controller/1-dream/evolution", after=True),
    ):
        assert command("train", "car-racing", "--run", run, *words, faults=[fault]).code == KILLED
    shutil.rmtree(run / "round-1" / "memory-2")
    refused(command("controller", "car-racing", "--run", run, *words), "the memory stage", "is not finished")
    assert command("train", "car-racing", "--run", run, *words).code == 0
    assert digests(run, ["memory"]) == digests(finished, ["memory"])
    assert digests(run, ["memory", "controller"]) == digests(whole, ["memory", "controller"])
    second, first = (run / "round-1" / name / "memory.safetensors" for name in ("memory-2", "memory"))
    assert second.read_bytes() == (whole / "round-1" / "memory-2" / "memory.safetensors").read_bytes()
    assert second.read_bytes() != first.read_bytes()
    assert litter(run) == []


def test_ablations_go_on_after_a_kill(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run")
    words = "ablate", "car-racing", "--run", run, "--variants", "v-only", "v-only-hidden", "untrained-m", "dream-only"
    for fault in (
        kill("os:replace", "controller-v-only/1-real/evolution", nth=2, after=True),
        kill("os:replace", "controller-v-only-hidden/1-real/evolution", nth=2, after=True),
        kill("os:replace", "evaluation-untrained-m/partial", after=True),
        kill("os:replace", "controller-dream-only/1-real/evolution", nth=1, after=True),
    ):
        assert command(*words, faults=[fault]).code == KILLED
    outcome = command(*words)
    assert outcome.code == 0, outcome.err
    rows = json.loads((run / "ablation.json").read_bytes())
    assert set(rows) == {"full", "v-only", "v-only-hidden", "untrained-m", "dream-only", "random"}
    assert rows["full"]["returns"]
    assert len({tuple(row["seeds"]) for row in rows.values()}) == 1
    assert litter(run) == []


def test_another_number_of_scored_episodes_scores_anew(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path / "run")
    outcome = command("evaluate", "car-racing", "--run", run, "--evaluate.episodes", "1")
    assert outcome.code == 0, outcome.err
    assert scores(run)["returns"] == scores(finished)["returns"][:1]


def test_a_second_process_is_refused_and_told_who_holds_the_run_and_the_lock_of_a_dead_one_is_no_matter(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(finished, tmp_path / "run", until="vision")
    stopping = {"at": "worldmodels.vision.conv_vae:vae_loss", "call": 2, "do": "SIGSTOP"}
    holder = Launched("vision", "car-racing", "--run", run, faults=[stopping])
    try:
        holder.wait_until_stopped()
        before = snapshot(run)
        for verb in ("vision", "train", "evaluate", "ablate"):
            refused(call(capsys, verb, "car-racing", "--run", run), f"in use by process {holder.pid};", str(run))
        assert snapshot(run) == before
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
    assert holder.finish().code == KILLED
    assert (run / "lock").read_text().strip() == str(holder.pid)
    outcome = call(capsys, "vision", "car-racing", "--run", run)
    assert outcome.code == 0, outcome.err
    assert_same_artefacts(run, finished, "vision")
