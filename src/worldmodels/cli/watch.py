"""The verbs to watch and play: watch, record, play and dream."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from worldmodels.analysis.config import DreamReportConfig
from worldmodels.cli.options import OptionalTaskName, agent_for, parse
from worldmodels.core.errors import UserError
from worldmodels.core.numbers import score_text
from worldmodels.core.settings import number, part, table, text

if TYPE_CHECKING:
    from worldmodels.agent import Agent


@dataclass(frozen=True)
class WatchOptions:
    """Watch the agent play: in a window, or without a screen in a short film."""

    task: OptionalTaskName = text(None)
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own (default: that of the agent)."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    agent: str | None = text(None)
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = number(1, low=0)
    """Seed of the first episode."""
    steps: int | None = number(None, low=1)
    """Stop after so many steps (default: in a window, when it is closed; in a film, after 10 seconds)."""


def watch(verb: str, arguments: Sequence[str], description: str) -> int:
    """Watch the agent in a window, or make a short film."""
    options = parse(WatchOptions, verb, arguments, description=description)
    from worldmodels.play.display import has_display

    if has_display():
        from worldmodels.play.window import watch as watch_window

        watch_window(agent_for(options.task, options.agent, env=options.env), options.seed, options.steps)
        return 0
    from worldmodels.render.short_film import short_film

    agent = agent_for(options.task, options.agent, env=options.env)
    path, seconds = short_film(agent, options.seed, options.steps)
    print(f"{path}: {seconds:.0f} seconds of {agent.task.title}")
    print("There is no screen here: copy the film to a machine with one, and open it in a video player or a browser.")
    return 0


@dataclass(frozen=True)
class RecordOptions:
    """A video of one episode: the world, V's reconstruction of it, and M's prediction."""

    task: OptionalTaskName = text(None)
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own (default: that of the agent)."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    out: Path = text(Path("drive.mp4"))
    """The file: .mp4, .gif, or .png for a contact sheet."""
    agent: str | None = text(None)
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = number(1, low=0)
    """Seed of the episode."""
    backend: str | None = text(None)
    """Backend of the world (default: the task's reference backend)."""
    steps: int | None = number(None, low=1)
    """Longest episode, in steps (default: the task's limit)."""
    every: int | None = number(None, low=1)
    """Show only every n-th step (default: 1 for .mp4, 5 for .png; .gif: about ten pictures per second)."""


def record(verb: str, arguments: Sequence[str], description: str) -> int:
    """Record a video."""
    options = parse(RecordOptions, verb, arguments, description=description)
    agent = agent_for(options.task, options.agent, env=options.env)
    from worldmodels.render.video import record as record_video

    result = record_video(agent, options.out, options.seed, options.backend, options.steps, options.every)
    print(f"{options.out}: return {score_text(result['return'])} in {result['steps']} steps")
    return 0


@dataclass(frozen=True)
class PlayOptions:
    """Play in a window. Space lets the agent play, Enter starts a new episode, p pauses, Esc quits.

    The arrow keys, WASD or a gamepad (left stick and triggers) steer, accelerate and brake. In worlds of gym:ID, the
    line below the world says which key makes which action. In bin packing, type the level of the bin for the item (0:
    a new bin) or click on it; the key b lets the rule best fit choose, which also packs the same items beside you for
    comparison.
    """

    task: OptionalTaskName = text(None)
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own (default: that of the agent)."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    seed: int = number(1, low=0)
    """Seed of the first episode."""
    save: Path | None = text(None)
    """Save every finished episode in this directory, and the unfinished one when you quit."""
    agent: str | None = text(None)
    """A saved agent or a run that takes over on the space bar (default: the shipped agent)."""


def play(verb: str, arguments: Sequence[str], description: str) -> int:
    """Play in a window."""
    options = parse(PlayOptions, verb, arguments)
    from worldmodels.play.window import play as play_window
    from worldmodels.tasks import get_task

    if options.agent is not None:
        task = agent_for(options.task, options.agent, env=options.env).task
    else:
        task = get_task(options.task or "car-racing", options.env)
    play_window(task, options.seed, options.save, options.agent)
    return 0


@dataclass(frozen=True)
class DreamOptions:
    """Dreams: report on their fidelity, play in one, or record the agent in one."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[WHAT]")] = text("play")
    """What to do: report, play or record."""
    task: OptionalTaskName = text(None)
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own (default: that of the agent)."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    agent: str | None = text(None)
    """A saved agent or a run (default: the shipped agent)."""
    seed: int = number(1, low=0)
    """Seed of the dreams."""
    temperature: float = number(1.0, above=0)
    """Sampling temperature of the dream: 1 leaves M's predictions as they are, more makes the dream more uncertain."""
    dropout: float | None = number(None, low=0, high=0.9)
    """Share of z and of h that M does not see, by a mask that each dream draws at its start and keeps, for an M that
    was trained with memory.dropout (default: 0; report: that of the task's settings)."""
    out: Path | None = text(None)
    """record: the file, .mp4 or .gif (default: dream.mp4); report: the folder (default: dream-report)."""
    steps: int | None = number(None, low=1)
    """record: longest episode, in steps (default: the task's limit)."""
    every: int | None = number(None, low=1)
    """record: show only every n-th step (default: 1 for .mp4; .gif: about ten pictures per second)."""
    report: DreamReportConfig = part(DreamReportConfig)


def dream(verb: str, arguments: Sequence[str], description: str) -> int:
    """Report on dreams, play in them or record them."""
    groups = ("report",) if "report" in arguments else ()
    options = parse(DreamOptions, verb, arguments, description=description, groups=groups)
    if options.what == "play":
        from worldmodels.play.window import play_dream

        agent = _dreaming_agent(options)
        dropout = options.dropout or 0.0
        play_dream(agent.task, options.seed, options.agent, options.temperature, dropout=dropout)
    elif options.what == "record":
        from worldmodels.render.dream_video import record_dream

        agent = _dreaming_agent(options)
        out = options.out or Path("dream.mp4")
        sizes = options.steps, options.every, options.dropout or 0.0
        result = record_dream(agent, out, options.seed, options.temperature, *sizes)
        real = "" if result["real_score"] is None else f", {score_text(result['real_score'])} in the real world"
        print(f"{out}: score {score_text(result['dream_score'])} in the dream{real}, {result['steps']} steps")
    elif options.what == "report":
        _report(options)
    else:
        raise UserError(f"expected report, play or record, got {options.what!r}; see worldmodels dream --help")
    return 0


def _dreaming_agent(options: DreamOptions) -> "Agent":
    """The agent whose dreams they are, after a note on a dropout that its M was not trained for."""
    from worldmodels.dream.dropout_info import note_dropout

    agent = agent_for(options.task, options.agent, env=options.env)
    note_dropout(agent, options.dropout)
    return agent


def _report(options: DreamOptions) -> None:
    from worldmodels.analysis.dream_report import DreamReport, print_report
    from worldmodels.execution.executor import make_executor
    from worldmodels.run.presets import preset, resolved

    agent = _dreaming_agent(options)
    folder = options.out or Path("dream-report")
    usual = resolved(preset("standard", agent.task.name, agent.task.options, agent.task.facts), agent.task)
    with contextlib.closing(make_executor()) as executor:
        dropout = usual.dream.dropout if options.dropout is None else options.dropout
        settings = usual.evolution, replace(usual.dream, dropout=dropout)
        name = options.agent or f"shipped {agent.task.name}"
        report = DreamReport(agent, options.report, options.seed, folder, *settings, executor, name)
        print_report(report.run(), folder)
