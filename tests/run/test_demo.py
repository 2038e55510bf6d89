"""The demo: how long it says that it takes, and what it shows in the end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from worldmodels.core import terminal
from worldmodels.core.events import Advanced, Ended, Event, Started, listening
from worldmodels.evolution.phases import progress_names
from worldmodels.run import demo
from worldmodels.run.demo import EPISODES, PARTS, TimeLeft, demo_config, demo_run
from worldmodels.run.presets import preset

FIFTEEN_MINUTES = 15 * 60


def test_the_demo_promises_less_than_a_quarter_of_an_hour_and_learns_as_the_quick_preset() -> None:
    assert sum(seconds for _, _, seconds in PARTS) <= 0.95 * FIFTEEN_MINUTES
    config, quick = demo_config(3), preset("quick")
    assert config.evaluate.episodes == EPISODES
    assert replace(config, seed=quick.seed, evaluate=quick.evaluate) == quick
    names = [name for name, _, _ in PARTS]
    evolving = progress_names(config.evolution)
    assert names[: 5 + len(evolving)] == ["collect", "vision", "encode", "memory", *evolving, "evaluate"]


def test_the_time_left_is_that_of_all_parts_at_the_pace_of_those_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Event] = []
    monkeypatch.setattr(demo, "terminal", shown.append)
    listener = TimeLeft([("one", "a part", 60), ("two", "another", 120), ("two", "the same again", 180)])

    def left() -> float:
        event = shown[-1]
        assert isinstance(event, Advanced)
        return event.numbers["minutes left in all"]

    def advanced(what: str, seconds: float) -> Advanced:
        return Advanced(what, 1, 2, "steps", 1.0, seconds)

    listener(Started("one", 2, "steps", 0))
    listener(advanced("one", 30))
    assert left() == (30 + 120 + 180) / 60
    listener(Ended("one", 2, "steps", 120.0, True))
    listener(Started("two", 2, "steps", 0))
    listener(advanced("two", 60))
    assert left() == (60 + 2 * 180) / 60, "twice as slow as expected so far"
    listener(Ended("two", 2, "steps", 240.0, True))
    listener(Started("two", 2, "steps", 0))
    listener(advanced("two", 90))
    assert left() == 1.5

    # What an earlier process has finished is not announced again.
    listener = TimeLeft([("one", "a part", 60), ("two", "another", 120), ("three", "a third", 180)])
    listener(Started("two", 2, "steps", 1))
    listener(advanced("two", 60))
    assert left() == (60 + 180) / 60


def test_the_demo_ends_with_three_scores_on_the_same_tracks_and_one_film(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_world: None
) -> None:
    from worldmodels.run.reader import RunReader

    source = RunReader(finished)
    monkeypatch.setattr(demo, "demo_config", lambda seed: source.config)
    monkeypatch.setattr(demo, "FILM_STEPS", 6)
    from cases import copy_of

    run = copy_of(finished, tmp_path / "demo")
    said: list[str] = []
    monkeypatch.setattr(terminal, "show", said.append)
    demo_run(run, 1)
    assert said[0].startswith("demo: about 11 minutes on two free cores") and "training V 1m20s" in said[0]
    assert said[0].count("evolving C") == 1, "phases and starts are told together"
    shipped, chance = (json.loads((run / f"demo-{name}.json").read_bytes()) for name in ("shipped-agent", "random"))
    assert shipped["seeds"] == chance["seeds"] == source.evaluation()["seeds"]
    assert len(shipped["returns"]) == len(chance["returns"]) == 2
    assert (run / "scores.png").stat().st_size > 0
    film = run / "side-by-side.mp4"
    assert any(str(film) in line for line in said)
    import imageio.v2

    pictures = list(imageio.v2.get_reader(film).iter_data())
    assert len(pictures) == 4 and pictures[0].shape[1] > 3 * 400, "every other step of six, and three panels"


def test_listening_to_the_demo_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Event] = []
    monkeypatch.setattr(demo, "terminal", shown.append)
    with listening(TimeLeft(PARTS)):
        from worldmodels.core.events import say

        say("hello")
    assert [getattr(event, "text", None) for event in shown] == ["hello"]
