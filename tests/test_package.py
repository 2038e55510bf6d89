"""The package installs as it says: one version, every dependency pinned, the agents inside the wheel."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import worldmodels

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "worldmodels"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in requirements:
        assert re.fullmatch(r"==[^*,+]+", str(requirement.specifier)), f"not a plain pin: {requirement}"
        assert requirement.url is None
    return {canonicalize_name(each.name): str(each.specifier)[2:] for each in requirements}


def declared(project: dict[str, Any]) -> list[Requirement]:
    """What pyproject asks for, the extras included, less the package's own name."""
    table = project["project"]
    lines = [
        *table["dependencies"],
        *(line for extra in table["optional-dependencies"].values() for line in extra),
    ]
    return [each for line in lines if (each := Requirement(line)).name != "worldmodels"]


def test_the_version_is_said_once_and_the_installed_one_agrees(project: dict[str, Any]) -> None:
    assert "version" in project["project"]["dynamic"]
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == PACKAGE / "__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", worldmodels.__version__)
    try:
        installed = metadata.version("worldmodels")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from the sources, not installed")
    assert installed == worldmodels.__version__


def test_the_readme_is_the_description_on_the_package_page(project: dict[str, Any]) -> None:
    if (ROOT / "README.md").exists():
        assert project["project"].get("readme") == "README.md", 'add readme = "README.md" to pyproject.toml'


def test_every_extra_has_a_comment_that_explains_it(project: dict[str, Any]) -> None:
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    for extra in project["project"]["optional-dependencies"]:
        (at,) = (index for index, line in enumerate(lines) if line.startswith(f"{extra} = ["))
        assert lines[at - 1].startswith("# "), f"explain the extra {extra!r}"


def test_every_requirement_is_pinned_at_a_version_that_it_admits(project: dict[str, Any], pins: dict[str, str]) -> None:
    for requirement in declared(project):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pin, prereleases=True), f"{requirement} does not admit {pin}"


def test_everything_that_comes_along_is_pinned_too(project: dict[str, Any], pins: dict[str, str]) -> None:
    waiting = declared(project)
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        # A CUDA build of torch pins its own libraries; which they are depends on the build.
        if name in seen or name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        seen.add(name)
        assert name in pins, f"{name} comes along with another package but is not in constraints.txt"
        try:
            lines = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            continue  # an extra that does not exist on this system
        extras = [*requirement.extras, ""]
        for each in map(Requirement, lines):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(each)


def test_the_wheel_holds_the_code_the_types_and_the_shipped_agents(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    # Ignore rules decide what hatchling packs, so the real ones must be there.
    shutil.copy(ROOT / ".gitignore", source)
    shutil.copytree(PACKAGE, source / "src" / "worldmodels", ignore=shutil.ignore_patterns("__pycache__"))
    agent = source / "src" / "worldmodels" / "agents" / "a-test-agent"
    agent.mkdir()
    (agent / "agent.json").write_text("{}")
    (agent / "vision.safetensors").write_bytes(b"weights")

    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(source)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("worldmodels-*.whl")
    assert wheel.name.startswith(f"worldmodels-{worldmodels.__version__}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        entry_points = archive.read(f"worldmodels-{worldmodels.__version__}.dist-info/entry_points.txt").decode()
    wanted = {str(path.relative_to(source / "src")) for path in (source / "src").rglob("*") if path.is_file()}
    assert wanted <= held
    assert {"worldmodels/py.typed", "worldmodels/agents/a-test-agent/vision.safetensors"} <= held
    assert {name.split("/")[0] for name in held} == {
        "worldmodels",
        f"worldmodels-{worldmodels.__version__}.dist-info",
    }
    assert "worldmodels = worldmodels.cli.main:main" in entry_points


def project_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_place_on_somebodys_machine_or_a_registry() -> None:
    # Put together from halves, so that this file does not find itself.
    folders = "|".join(("wo" + "rk", "ro" + "ot", "op" + "t", "ho" + r"me/[a-z]\w*", "tm" + "p/venv"))
    hosts = "|".join(("py" + r"pi\.org", "python" + "hosted", r"download\.py" + "torch", "npm" + r"js\.org"))
    forbidden = re.compile(rf"(?<![\w.$}}~-])/(?:{folders})(?=/|\b)|{hosts}|\bdeb\.deb" + "ian")
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        for number, line in enumerate(text.splitlines(), 1):
            if match := forbidden.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert not found, "\n".join(found)


def test_every_file_that_names_the_version_names_the_same_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation["version"] == releases[0][0] == worldmodels.__version__
    assert str(citation["date-released"]) == releases[0][1]
    assert releases == sorted(releases, key=lambda release: Version(release[0]), reverse=True)


def test_the_citation_has_what_the_format_requires(project: dict[str, Any]) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
    assert citation["authors"] == project["project"]["authors"]
    assert citation["license"] == project["project"]["license"]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= reference.keys()
        assert [author["family-names"] for author in reference["authors"]] == ["Ha", "Schmidhuber"]


def test_the_source_archive_holds_the_documentation_and_the_examples(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("worldmodels-*.tar.gz")
    with tarfile.open(archive) as content:
        held = {name.partition("/")[2] for name in content.getnames()}
    wanted = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "Makefile", "mkdocs.yml"}
    wanted |= {"constraints.txt", "pyproject.toml", "examples/catch/catch_world/presets.toml", "docs/hooks.py"}
    wanted |= {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/images/*")]}
    wanted |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("src/worldmodels/agents/**/*.safetensors")}
    assert wanted <= held, wanted - held
