"""worldmodels watch: a window where there is a screen, and a short film where there is none."""

import os
from pathlib import Path

import imageio.v2 as imageio
import pytest

from dream_agents import dreamer
from worldmodels.cli import main as cli
from worldmodels.play import window
from worldmodels.render.short_film import short_film
from worldmodels.tasks.base import playing_of


@pytest.fixture
def agent(tmp_path: Path) -> str:
    dreamer().save(tmp_path / "agent")
    return str(tmp_path / "agent")


@pytest.fixture
def without_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, on a machine without a screen."""
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_without_a_screen_a_film_is_made_and_its_path_and_how_to_see_it_are_printed(
    agent: str, without_screen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["watch", "car-racing", "--agent", agent, "--steps", "100"]) == 0
    film = without_screen / "watch-car-racing.mp4"
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{film}: 2 seconds of CarRacing"
    assert second.startswith("There is no screen here: copy the film")
    with imageio.get_reader(film) as reader:
        assert reader.get_meta_data()["fps"] == 25 and reader.get_data(0).shape[1] > 3 * 480


def test_the_film_has_ten_seconds_of_the_world_and_at_most_25_pictures_per_second(
    monkeypatch: pytest.MonkeyPatch, without_screen: Path
) -> None:
    asked: list[tuple[int, int]] = []

    def record(agent: object, out: Path, seed: int, max_steps: int, every: int) -> dict[str, int]:
        asked.append((max_steps, every))
        return {"steps": max_steps}

    monkeypatch.setattr("worldmodels.render.short_film.record", record)
    for task in ("car-racing", "take-cover"):
        agent = dreamer(task)
        assert short_film(agent, 1) == (without_screen / f"watch-{task}.mp4", 10.0)
        steps, every = asked.pop()
        rate = playing_of(agent.task).frames_per_second
        assert steps == 10 * rate and rate / every <= 25


def test_where_nothing_can_be_written_the_film_goes_to_the_folder_for_temporary_files(
    monkeypatch: pytest.MonkeyPatch, without_screen: Path, tmp_path: Path
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != without_screen and access(path, mode))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path, _ = short_film(dreamer(), 1, steps=3)
    assert path == tmp_path / "watch-car-racing.mp4" and path.stat().st_size > 0


def test_with_a_screen_the_agent_is_watched_in_a_window(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown: list[tuple[str, str, int]] = []
    real = window.show

    def show(make: object, tick: object, steps: int) -> list[float]:
        return real(make, lambda viewer: shown.append((viewer.player, viewer.title, viewer.step)), steps)  # type: ignore[arg-type,attr-defined]

    monkeypatch.setattr(window, "show", show)
    assert cli.main(["watch", "--agent", agent, "--steps", "3"]) == 0
    assert shown == [("agent", "CarRacing", step) for step in range(3)]
