"""URLs on the command line become local folders before a verb sees them."""

from pathlib import Path

import pytest

from worldmodels.cli.places import local_folders
from worldmodels.core.errors import UserError
from worldmodels.core.storage.manifest import manifest_of
from worldmodels.core.storage.place import Place
from worldmodels.core.storage.sync import sync


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in a bucket, as far as this layer looks into it."""
    monkeypatch.setenv("WORLDMODELS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "run.json").write_text("{}")
    sync(tmp_path / "first", f"memory://{tmp_path.name}/first")
    return f"memory://{tmp_path.name}/first"


def seen(verb: str, *arguments: str) -> list[str]:
    """What the verb sees."""
    with local_folders(verb, arguments) as local:
        return local


@pytest.mark.parametrize("words", [["--run", "file:///some/run"], ["--run=file:///some/run"]])
def test_a_file_url_is_the_path_of_a_folder(words: list[str]) -> None:
    assert "=".join(seen("train", "car-racing", *words)) == "car-racing=--run=/some/run"


def test_a_run_in_a_bucket_is_worked_on_in_a_folder_and_written_there_at_the_end(url: str) -> None:
    with local_folders("train", [f"--run={url}", "--seed", "2"]) as (run, *rest):
        folder = Path(run.removeprefix("--run="))
        assert (folder / "run.json").read_text() == "{}" and rest == ["--seed", "2"]
        (folder / "note.json").write_text("[]")
    assert "note.json" in (manifest_of(Place(url)) or {})


def test_a_run_that_is_taken_over_is_read_and_the_new_one_needs_a_folder_of_its_own(url: str) -> None:
    words = seen("train", "--from", url, "--run", "mine")
    assert words[::2] == ["--from", "--run"] and Path(words[1], "run.json").is_file() and words[3] == "mine"
    with pytest.raises(UserError, match=rf"expected --run with --from {url}"):  # not beside it, in the cache
        seen("train", "--from", url)


def test_urls_of_agents_and_options_of_the_environment_stay(url: str) -> None:
    words = ["gym:X", "--agent", url, "--env.map=https://example.org/map", "--env.other", "https://example.org/other"]
    assert seen("evaluate", *words) == words
    assert seen("sync", url, "copy") == [url, "copy"] and seen("runs", url) == [url]


def test_a_url_where_no_url_can_be_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="--json takes no URL; expected a local path"):
        seen("evaluate", "--json", url)
    with pytest.raises(UserError, match="export takes no URL"):
        seen("export", "episodes", url)
