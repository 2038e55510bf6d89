"""The verbs that exchange files with other programs: import, export and sample."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldmodels.cli.env_options import without_env
from worldmodels.cli.options import OptionalTaskName, agent_for, parse, value_of
from worldmodels.cli.runs import in_full, starting_settings
from worldmodels.core.errors import UsageError, UserError
from worldmodels.core.settings import choice, number, table, text
from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.run.config import Config

Folder = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
WHATS = {
    "import": {
        "episodes": "recordings (.npz files, one per episode) become the finished collect stage of a run",
        "weights": "the weights that Ha and Schmidhuber published (.json files) become an agent, or the V of a run",
    },
    "export": {
        "episodes": "the episodes of a run, as npz files, as a Minari dataset or as a Hugging Face dataset",
        "latents": "the latents of a run, as npz files",
        "onnx": "an agent as ONNX models: V's encoder and decoder, a step of M, and C",
    },
}
"""What can be imported and exported, and what becomes of it."""


Command = Callable[[Sequence[str]], int]


def _dispatch(verb: str, commands: Mapping[str, Command], arguments: Sequence[str], description: str) -> int:
    """Run the command that the first word after the verb names; help and errors list what there is."""
    what = arguments[0] if arguments else ""
    if what in commands:
        return commands[what](arguments[1:])
    if what not in ("-h", "--help", "--help-all"):
        known = " or ".join(commands)
        raise UsageError(f"expected {known} after {verb}, got {what or 'nothing'}; see worldmodels {verb} --help")
    listed = "\n".join(f"  {name:<10}{about}" for name, about in WHATS[verb].items())
    print(f"usage: worldmodels {verb} WHAT [OPTIONS]\n\n{description}\n\nwhat:\n{listed}\n")
    print(f"worldmodels {verb} WHAT --help lists its options.")
    for command in commands.values() if what == "--help-all" else ():
        with contextlib.suppress(SystemExit):
            command([what])
    raise SystemExit(0)


@dataclass(frozen=True)
class ImportEpisodesOptions(RecordingConfig, Config):
    """Recordings, and the settings of the run that begins with them."""

    folder: Folder = text(None)
    """The folder with the recordings: an .npz file per episode, with the arrays obs and action, and reward and done
    where they are known."""
    task: str = text("car-racing")
    """The world in which they were recorded: car-racing, take-cover, bin-packing, gym:ID or one of your own."""
    preset: str = text("standard")
    """The preset from which the other settings of the run come."""
    run: Path | None = text(None)
    """The run's directory (default: runs/TASK-PRESET-seedS). The same command continues it."""
    executor: str = text("auto")
    """Where files are read: workers (a process per core), local (this process) or auto."""


@dataclass(frozen=True)
class ImportWeightsOptions:
    """The weights that Ha and Schmidhuber published with World Models (2018)."""

    folder: Folder = text(None)
    """The folder with vae.json, rnn.json, initial_z.json and the controller's file, also in the folders of the authors'
    repository."""
    task: str = choice("car-racing", "car-racing", "take-cover")
    """The world in which they were trained."""
    controller: Path | None = text(None)
    """The controller's file, if there are several (default: the one that ends with best.json)."""
    out: Path | None = text(None)
    """The folder for the agent."""
    run: Path | None = text(None)
    """A run of the task's published variant whose episodes are there: V becomes its vision stage, and the stages after
    that train M and C for it."""


@dataclass(frozen=True)
class ExportOptions:
    """What of a run is written, and where."""

    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = text(None)
    """The run."""
    out: Path | None = text(None)
    """A new or empty folder for the files."""


@dataclass(frozen=True)
class ExportEpisodesOptions(ExportOptions):
    """What of a run is written, where, and in which format."""

    format: str = text("npz")
    """npz (a file per episode), minari (a Minari dataset), hf-dataset (a Hugging Face dataset), or one that another
    package adds."""


@dataclass(frozen=True)
class ExportOnnxOptions:
    """The agent, and where its models are written."""

    agent: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")] = text(None)
    """A saved agent, a run or the name of a shipped agent."""
    out: Path | None = text(None)
    """A new or empty folder for the models."""


@dataclass(frozen=True)
class SampleOptions:
    """Episodes that an agent plays, as .npz files with what it saw, thought and did."""

    task: OptionalTaskName = text(None)
    """The world: car-racing, take-cover, bin-packing, gym:ID or one of your own (default: that of the agent)."""
    env: dict[str, Any] = table()
    """Options of the environment: those of gymnasium.make for gym:ID, action_repeat for car-racing."""
    agent: str | None = text(None)
    """A saved agent or a run (default: the shipped agent)."""
    episodes: int = number(10, low=1)
    """Number of episodes."""
    out: Path | None = text(None)
    """The folder for the files. The same command continues there."""
    seed: int = number(1, low=0)
    """Seed from which those of the episodes follow; scores have other ones."""
    backend: str | None = text(None)
    """Backend of the world (default: the task's reference backend)."""
    steps: int = number(0, low=0)
    """Longest episode, in steps; 0 means the task's limit."""
    executor: str = text("auto")
    """Where episodes are played: workers (a process per core), local (this process, as for a GPU) or auto."""
    device: str = choice("auto", "auto", "cpu", "cuda")
    """Device of the networks; auto uses a GPU if there is one."""


def _needed(value: Path | None, what: str, verb: str) -> Path:
    if value is None:
        raise UserError(f"expected {what}; see worldmodels {verb} --help")
    return value


def _from(options: Any, kind: Any) -> dict[str, Any]:
    return {item.name: getattr(options, item.name) for item in dataclasses.fields(kind)}


def import_(verb: str, arguments: Sequence[str], description: str) -> int:
    """Import recordings or weights."""
    return _dispatch(verb, _IMPORTS, arguments, description)


def _import_episodes(arguments: Sequence[str]) -> int:
    from worldmodels.run.run import check_settings, default_directory, read_config

    verb = "import episodes"
    arguments, env = without_env(in_full(arguments))
    run = value_of("--run", arguments)
    old = read_config(Path(run)) if run else None
    task = value_of("--task", arguments) or (old.task if old is not None else "car-racing")
    config = starting_settings(old, task, value_of("--preset", arguments), env)
    default = ImportEpisodesOptions(**_from(config, Config))
    about = (
        "Reads a folder of .npz files. Writes round-1/episodes of the run, so that vision, encode, memory, controller "
        "and train go on from there. --phases is short for --evolution.sequence."
    )
    options = parse(ImportEpisodesOptions, verb, arguments, default, about, ())
    from worldmodels.run.importing import import_episodes

    # The task of a Gymnasium environment is called as it is written in full.
    settings = dataclasses.replace(Config(**_from(options, Config)), task=config.task)
    check_settings(settings, old)
    reading = RecordingConfig(**_from(options, RecordingConfig))
    folder = _needed(options.folder, "the folder with the recordings", verb)
    import_episodes(settings, options.run or default_directory(settings), folder, reading, options.executor)
    return 0


def _import_weights(arguments: Sequence[str]) -> int:
    verb = "import weights"
    about = (
        "Reads the published .json files. Writes an agent that sees frames as the authors made them and acts on "
        "samples of z, or the V of a run. Its task is TASK-published."
    )
    options = parse(ImportWeightsOptions, verb, arguments, description=about)
    folder = _needed(options.folder, "the folder with vae.json", verb)
    if (options.out is None) == (options.run is None):
        raise UserError("expected --out AGENT for an agent, or --run RUN for the V of a run")
    import torch

    from worldmodels.core.events import say
    from worldmodels.data.exchange.published_weights import published_agent, published_task
    from worldmodels.run.importing import import_vision

    task = published_task(options.task)
    if options.run is not None:
        import_vision(options.run, folder, task)
        return 0
    out = _needed(options.out, "--out AGENT", verb)
    agent, absent = published_agent(folder, task, options.controller)
    agent.save(out, torch.float32)
    for what, effect in (("C", "its outputs are zero"), ("start states", "it cannot dream")):
        if what in absent:
            say(f"{folder} holds no {what} for the agent: {effect}")
    say(f"{agent!r} is in {out}; next: worldmodels evaluate {task.name} --agent {out}")
    return 0


_IMPORTS: Mapping[str, Command] = {"episodes": _import_episodes, "weights": _import_weights}


def export(verb: str, arguments: Sequence[str], description: str) -> int:
    """Export episodes, latents or an agent."""
    return _dispatch(verb, _EXPORTS, arguments, description)


def _export_episodes(arguments: Sequence[str]) -> int:
    verb = "export episodes"
    about = "Reads round-N/episodes of all rounds of a run. Writes them into a new folder."
    options = parse(ExportEpisodesOptions, verb, arguments, description=about)
    from worldmodels.run.exporting import export_episodes

    out = _needed(options.out, "--out DIR", verb)
    count = export_episodes(_needed(options.source, "the run", verb), options.format, out)
    print(f"{out}: {count:,} episodes as {options.format}")
    return 0


def _export_latents(arguments: Sequence[str]) -> int:
    verb = "export latents"
    about = "Reads round-N/latents of the last round of a run. Writes a file per episode into a new folder."
    options = parse(ExportOptions, verb, arguments, description=about)
    from worldmodels.run.exporting import export_latents

    out = _needed(options.out, "--out DIR", verb)
    count = export_latents(_needed(options.source, "the run", verb), out)
    print(f"{out}: the latents of {count:,} episodes")
    return 0


def _export_onnx(arguments: Sequence[str]) -> int:
    verb = "export onnx"
    about = "Reads an agent. Writes encoder.onnx, decoder.onnx, memory.onnx, controller.onnx and agent.json."
    options = parse(ExportOnnxOptions, verb, arguments, description=about)
    if options.agent is None:
        raise UserError(f"expected the agent; see worldmodels {verb} --help")
    from worldmodels.data.exchange.onnx_models import export_onnx

    out = _needed(options.out, "--out DIR", verb)
    differences = export_onnx(agent_for(None, options.agent), out)
    print(f"{out}: " + ", ".join(f"{name} (differs by {value:.1g})" for name, value in differences.items()))
    return 0


_EXPORTS: Mapping[str, Command] = {
    "episodes": _export_episodes,
    "latents": _export_latents,
    "onnx": _export_onnx,
}


def sample(verb: str, arguments: Sequence[str], description: str) -> int:
    """Let an agent play into files."""
    about = f"{description}\n\nReads an agent. Writes a file per episode: obs, action, reward, done, z and h."
    options = parse(SampleOptions, verb, arguments, description=about)
    out = _needed(options.out, "--out DIR", verb)
    from worldmodels.core.device import choose_device
    from worldmodels.data.exchange.sample import sample_episodes
    from worldmodels.execution.executor import make_executor

    agent = agent_for(options.task, options.agent, options.device, options.env)
    device = choose_device(options.device).type
    with contextlib.closing(make_executor(options.executor, device)) as executor:
        played = sample_episodes(
            executor, agent, out, options.episodes, options.seed, options.backend or "", options.steps
        )
    print(f"{out}: {options.episodes:,} episodes, {played:,} of them played now")
    return 0
