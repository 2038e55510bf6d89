"""The demo: the quick preset from nothing to an agent, shown beside the shipped agent and random play."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worldmodels.agent import load_agent
from worldmodels.analysis.plots import bar_of_scores
from worldmodels.core.events import Advanced, Ended, Event, Started, listening, say
from worldmodels.core.seeds import episode_seeds
from worldmodels.core.terminal import duration, terminal
from worldmodels.evaluation import agent_policy, evaluate, print_scores, report
from worldmodels.execution.executor import make_executor
from worldmodels.render.comparison import compare, holding
from worldmodels.run.config import Config
from worldmodels.run.experiments import print_summary, train_run
from worldmodels.run.presets import preset

EPISODES = 10
"""Episodes of every score; the preset itself plays more."""
FILM_STEPS = 300
PARTS = (
    ("collect", "recording episodes", 12),
    ("vision", "training V", 80),
    ("encode", "encoding", 4),
    ("memory", "training M", 5),
    ("real", "evolving C", 28),
    ("visited", "evolving C", 65),
    ("real, start 2", "evolving C", 28),
    ("visited, start 2", "evolving C", 65),
    ("real, start 3", "evolving C", 28),
    ("visited, start 3", "evolving C", 65),
    ("refine", "evolving C", 100),
    ("evaluate", "scoring it", 50),
    ("evaluate", "scoring the shipped agent", 50),
    ("evaluate", "scoring random play", 40),
    ("film", "a film", 15),
)
"""The parts in order: the name of their progress, what they do, and about how many seconds they take on two cores."""


def demo_config(seed: int) -> Config:
    """The settings of the demo: the quick preset of CarRacing with fewer episodes of evaluation."""
    config = preset("quick", "car-racing")
    return replace(config, seed=seed, evaluate=replace(config.evaluate, episodes=EPISODES, num_envs=EPISODES))


def demo_run(directory: Path, seed: int) -> None:
    """Train the quick preset; score its agent, the shipped agent and the random policy on the same fresh episodes.

    Says at the start how long each part takes, and meanwhile how many minutes are left in all. Writes scores.png and
    side-by-side.mp4, a film of the beginning of an episode.
    """
    seconds: dict[str, float] = {}
    for _, what, taken in PARTS:
        seconds[what] = seconds.get(what, 0) + taken
    parts = ", ".join(f"{what} {duration(taken)}" for what, taken in seconds.items())
    minutes = round(sum(seconds.values()) / 60)
    say(f"demo: about {minutes} minutes on two free cores, longer if other programs use them: {parts}")
    say("demo: it can be stopped at any time; the same command continues")
    with listening(TimeLeft(PARTS)):
        _demo(demo_config(seed), directory)


def _demo(config: Config, directory: Path) -> None:
    settings = config.evaluate
    summary = train_run(config, directory)
    print_summary(summary, directory)
    rows = {"this run": summary["evaluation"]}
    shipped, trained = load_agent(config.task), load_agent(directory)
    task, backend = shipped.task, shipped.task.reference_backend
    seeds = episode_seeds("evaluation", config.seed, settings.episodes)
    policies = {
        "this run": holding(agent_policy(trained), trained.task.action_repeat),
        "shipped agent": agent_policy(shipped),
        "random": task.random_policy,
    }
    with contextlib.closing(make_executor()) as executor:
        for name, identity in (("shipped agent", shipped.digest()), ("random", "random")):
            partial = directory / f"demo-{name.replace(' ', '-')}.json"
            numbers, device = (settings.num_envs, settings.steps), shipped.device
            episodes = evaluate(executor, task, policies[name], backend, seeds, *numbers, partial, identity, device)
            origin = shipped.info if name == "shipped agent" else None
            rows[name] = report(task, name, backend, seeds, episodes, settings.steps, device, origin)
    film = directory / "side-by-side.mp4"
    compare(task, policies, film, seeds[0], FILM_STEPS)
    print_scores(rows)
    bar_of_scores(list(rows.items()), directory / "scores.png", directory)
    say(f"scores: {directory / 'scores.png'}; the first {FILM_STEPS} steps side by side: {film}")
    say(f"the run: {directory}; drive yourself: worldmodels play {config.task}")


class TimeLeft:
    """A listener that passes events on to the terminal and adds the minutes that all parts together still take.

    parts: name of the progress, description and expected seconds of each part, in order. Parts that are left are
    expected to be as much slower or faster as those that this process has finished.
    """

    def __init__(self, parts: Sequence[tuple[str, str, float]]) -> None:
        self._parts, self._next = list(parts), 0
        self._spent = self._expected = 0.0
        self._resumed = False

    def __call__(self, event: Event) -> None:
        """Pass on one event."""
        if isinstance(event, Started):
            later = [index for index in range(self._next, len(self._parts)) if self._parts[index][0] == event.what]
            if later:
                # Parts that an earlier process has finished report no progress.
                self._next, self._resumed = later[0] + 1, event.done > 0
        elif isinstance(event, Advanced):
            event = replace(event, numbers={**event.numbers, "minutes left in all": self._minutes(event)})
        elif isinstance(event, Ended) and event.completed and self._next and not self._resumed:
            self._spent += event.seconds
            self._expected += self._parts[self._next - 1][2]
        terminal(event)

    def _minutes(self, event: Advanced) -> float:
        pace = self._spent / self._expected if self._expected else 1.0
        rest = sum(seconds for _, _, seconds in self._parts[self._next :])
        return round((event.seconds_left + pace * rest) / 60, 1)
