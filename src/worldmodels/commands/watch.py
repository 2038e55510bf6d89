"""The verbs with which people see and play: record, play and dream."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from worldmodels.commands.options import TaskName, agent_for, parse
from worldmodels.config import DreamReportConfig, check
from worldmodels.errors import UserError


@dataclass(frozen=True)
class RecordOptions:
    """A video of one episode: the world, what V sees of it, and what M expected."""

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    out: Path = Path("drive.mp4")
    """The file: .mp4, .gif, or .png for some moments on one sheet."""
    agent: str | None = None
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = 1
    """Seed of the episode."""
    backend: str | None = None
    """One of the world's backends (default: its reference, on which scores count)."""
    steps: int | None = None
    """Longest episode (default: the task's limit)."""
    every: int | None = None
    """Show one step in so many (default: every step in an .mp4, every fifth elsewhere)."""


def record(verb: str, arguments: list[str]) -> int:
    """Record a video."""
    options = parse(RecordOptions, verb, arguments)
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps must be positive, got {options.steps}")
    if options.every is not None and options.every < 1:
        raise UserError(f"--every must be positive, got {options.every}")
    agent = agent_for(options.task, options.agent)
    from worldmodels.report.video import record as record_video

    result = record_video(agent, options.out, options.seed, options.backend, options.steps, options.every)
    print(f"{options.out}: return {result['return']:.1f} in {result['steps']} steps")
    return 0


@dataclass(frozen=True)
class PlayOptions:
    """Play yourself in a window; a lets the agent play, Enter is a new episode, Esc ends.

    The arrow keys steer, give gas and brake. In bin packing, type the level of the bin that takes the item (0: a new
    one) or click on it; b lets best fit choose, which also packs the same items beside you.
    """

    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing."""
    seed: int = 1
    """Seed of the first episode."""
    save: Path | None = None
    """Keep every finished episode as data in this directory."""
    agent: str | None = None
    """A saved agent or a run that takes over on the key a (default: the shipped agent)."""


def play(verb: str, arguments: list[str]) -> int:
    """Play in a window."""
    options = parse(PlayOptions, verb, arguments)
    from worldmodels.play import play as play_window
    from worldmodels.tasks import get_task

    play_window(get_task(options.task), options.seed, options.save, options.agent)
    return 0


@dataclass(frozen=True)
class DreamOptions:
    """The dream: report on how true it is, play in it, or record the agent in it."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = "play"
    """report, play or record."""
    task: TaskName = "car-racing"
    """The world: car-racing, take-cover or bin-packing; --agent says it too."""
    agent: str | None = None
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = 1
    """Seed of the dreams."""
    temperature: float = 1.0
    """Uncertainty of the dream: 1 is what M believes."""
    out: Path | None = None
    """record: the file, .mp4 or .gif (default: dream.mp4); report: the folder (default: dream-report)."""
    steps: int | None = None
    """record: longest episode (default: the task's limit)."""
    every: int | None = None
    """record: show one step in so many (default: every step in an .mp4, every fifth in a .gif)."""
    report: DreamReportConfig = field(default_factory=DreamReportConfig)


def dream(verb: str, arguments: list[str]) -> int:
    """Report on dreams, play in them or record them."""
    options = parse(DreamOptions, verb, arguments)
    for name in ("steps", "every"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be positive, got {value}")
    from worldmodels.tasks import get_task, task_names

    task = options.task
    if options.agent is not None and not any(text in task_names() for text in arguments if text != options.agent):
        from worldmodels.agent import load_agent

        task = load_agent(options.agent).task.name
    if options.what == "play":
        from worldmodels.play_dream import play_dream

        play_dream(get_task(task), options.seed, options.agent, options.temperature)
    elif options.what == "record":
        from worldmodels.report.dream_video import record_dream

        agent = agent_for(task, options.agent)
        out = options.out or Path("dream.mp4")
        result = record_dream(agent, out, options.seed, options.temperature, options.steps, options.every)
        real = "" if result["real_score"] is None else f", {result['real_score']:.1f} in the real world"
        print(f"{out}: score {result['dream_score']:.1f} in the dream{real}, {result['steps']} steps")
    elif options.what == "report":
        from worldmodels.report.dream import DreamReport, print_report

        check(options.report, "report.")
        agent = agent_for(task, options.agent)
        folder = options.out or Path("dream-report")
        print_report(DreamReport(agent, options.report, options.seed, folder).run(), folder)
    else:
        raise UserError(f"expected report, play or record, got {options.what!r}; see worldmodels dream --help")
    return 0
