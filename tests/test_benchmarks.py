"""The scripts in benchmarks/ run, and say what they promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(*arguments: str, script: str = "car_racing_same.py") -> str:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600, env=environment).stdout


def test_the_faster_car_racing_is_compared_in_states_pictures_and_latents(tmp_path: Path) -> None:
    found = run("pictures", "--seeds", "2", "--steps", "6", "--out", str(tmp_path))
    assert "12 pictures of 2 tracks; every state, reward and end is the same" in found
    mean = re.search(r"mean absolute difference ([0-9.]+) of 255", found)
    latents = re.search(r"V's latents: difference ([0-9.]+)%", found)
    assert mean is not None and float(mean[1]) < 0.4
    assert latents is not None and float(latents[1]) < 10
    assert (tmp_path / "worst.png").stat().st_size > 1000


def test_its_scores_are_compared_track_by_track(tmp_path: Path) -> None:
    found = run("scores", "--episodes", "2", "--seed", "3", "--steps", "20", "--out", str(tmp_path))
    assert re.search(r"paired difference, fast - gymnasium: [-+][0-9.]+ \([-+][0-9.]+ to [-+][0-9.]+\)", found)
    assert {name: len(values) for name, values in json.loads((tmp_path / "scores.json").read_text()).items()} == {
        "fast": 2,
        "gymnasium": 2,
    }


def test_its_steps_are_timed_beside_those_of_gymnasium() -> None:
    assert re.search(r"[0-9.]+ times as fast, step against step", run("speed", "--seeds", "1", "--steps", "5"))


def test_training_from_a_bucket_is_timed_beside_that_from_the_disk() -> None:
    found = run("--frames", "4000", "--steps", "1", "--repeats", "1", script="buckets.py")
    assert re.search(r"from the second epoch on: [0-9]+% of the disk's training, [0-9]+% of its reading", found)
