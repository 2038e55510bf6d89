"""A run: one directory that holds everything of an experiment, used by one process at a time.

run.json                     the resolved configuration, and with which versions, processor and device the run was begun
round-1/episodes/            output of collect; likewise vision/, latents/, memory/, controller/, evaluation/
round-1/vision/done.json     written last, when the stage is finished: its inputs and its result
round-1/controller/1-real/   metrics and checkpoint of the first phase of evolution
agent/                       the finished agent
summary.json, curves.png     results
"""

import fcntl
import os
import shlex
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import file_name, read_json, sweep, write_json
from worldmodels.core.provenance import differences
from worldmodels.core.settings import from_json, to_json
from worldmodels.data.collectors import check_policy
from worldmodels.data.noise import check_noise
from worldmodels.evolution.config import EvolutionConfig
from worldmodels.run.artifacts import Artifacts, own_folders
from worldmodels.run.config import Config
from worldmodels.run.names import LAYOUT
from worldmodels.run.presets import resolved, task_of
from worldmodels.run.stage import flat
from worldmodels.tasks.base import check_backend
from worldmodels.tasks.gym_names import shown_option

_NOTHING = "nothing"
_MOST_NAMED = 4
"""Most settings that an error names."""


class Run:
    """An open run. Use :meth:`open` as a context manager; it holds the lock."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory, self.config = directory, config

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, config: Config, made_with: Mapping[str, Any] | None = None, create: bool = True
    ) -> Iterator["Run"]:
        """Continue the run, or create it; :class:`UserError` if it is in use or has another task or other settings.

        made_with: the provenance of what this process computes. A new run records it; for a run that was begun with
        another processor, device, number of threads or version, a message says so. create: whether a run that does not
        exist is created; otherwise it is a :class:`UserError`.
        """
        if not create and not (directory / "run.json").exists():
            raise UserError(
                f"{directory} is not a run: it has no run.json; correct --run, or begin a run there: "
                f"worldmodels train {config.task} --run {directory}"
            )
        with _locked(directory):
            old = read_config(directory)
            begun_with = made_with if old is None else _content(directory).get("made_with")
            if old is not None:
                _same(directory, old, config)
            elif any(directory.glob("round-*")):
                raise UserError(f"{directory} holds stages but no run.json; restore it, or use another --run")
            if old is not None:
                for folder in own_folders(directory):
                    sweep(folder)
            if old != config:
                record = {"layout": LAYOUT, "made_with": begun_with, **to_json(config)}
                write_json(directory / "run.json", record, checksum=True)
            if begun_with and made_with and (changed := differences(begun_with, made_with)):
                say(
                    f"{directory} was begun with {'; '.join(changed)}: numbers from here on may differ from those of "
                    "an uninterrupted run, often only in their last digits"
                )
            yield cls(directory, config)

    def artifacts(self, round_number: int = 1) -> Artifacts:
        """The stages of a round."""
        return Artifacts(self.directory, self.config, round_number)


def read_config(directory: Path) -> Config | None:
    """The configuration of an existing run, or None where there is none."""
    if not (directory / "run.json").exists():
        return None
    content = _content(directory)
    layout = content.pop("layout", 1)
    content.pop("made_with", None)
    if layout != LAYOUT:
        age = "older" if layout == 1 else "other"
        raise UserError(
            f"{directory} was made by an {age} version of worldmodels and cannot be used by this one; use another --run"
        )
    if isinstance(content.get("memory"), dict):
        content["memory"].setdefault("clock", 0)  # in runs of versions whose M had none, whatever the task says now
    try:
        return from_json(Config, content)
    except UserError as error:
        path = directory / "run.json"
        raise UserError(f"the settings in {path} do not fit this version of worldmodels: {error}") from None


def _content(directory: Path) -> dict[str, Any]:
    """What run.json holds: the layout, the provenance of the process that began the run, and the settings."""
    repair = "restore it from a copy, or use another --run"
    return dict(read_json(directory / "run.json", checksum=True, repair=repair))


def default_directory(config: Config) -> Path:
    """The folder of a run for which none was chosen: runs/TASK-PRESET-seedS."""
    return Path("runs") / f"{file_name(config.task)}-{config.preset}-seed{config.seed}"


def check_settings(config: Config, existing: Config | None) -> None:
    """Raise :class:`UserError` for backends or a policy that the task does not have.

    existing: the settings of the run that is continued, whose policy need not be available any more.
    """
    task = task_of(config)
    settings = resolved(config, task)
    hits = settings.memory.hit_weight > 0
    if hits and task.full_health is None:
        raise UserError(
            f"--memory.hit-weight is for worlds that tell the health, and {task.name} does not; leave it out"
        )
    if settings.dream.termination == "health" and not hits:
        raise UserError(
            "dreams that end by their health need an M that predicts hits: expected a --memory.hit-weight above 0, "
            "such as 10, or another --dream.termination"
        )
    for backend in (settings.collect.backend, settings.evolution.backend):
        check_backend(task, backend)
    check_noise(task, config.collect.later_noise)
    if existing is None or existing.collect.policy != config.collect.policy:
        check_policy(task, config.collect.policy)


def _same(directory: Path, old: Config, new: Config) -> None:
    if old.task != new.task:
        raise UserError(f"{directory} is a run of task {old.task}, not {new.task}; use another --run")
    go_on = f"to continue it: worldmodels train --run {shlex.quote(str(directory))}"
    # Together, because the presets of a task may differ in the options of its environment.
    if (old.preset, old.env) != (new.preset, new.env):
        was, now = _preset_and_options(old), _preset_and_options(new)
        raise UserError(f"{directory} was made with {was}, not {now}; {go_on}; for other options, use another --run")
    # More generations, rounds or evaluation episodes continue a run; every other change would mix two experiments.
    grown = replace(
        old, rounds=new.rounds, evolution=_with_generations(old.evolution, new.evolution), evaluate=new.evaluate
    )
    if grown != new:
        before, after = flat(to_json(grown)), flat(to_json(new))
        # A phase may exist in only one of the two.
        pairs = {name: (before.get(name, _NOTHING), after.get(name, _NOTHING)) for name in before | after}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        named = [f"--{name} {_shown(was)}, not {_shown(now)}" for name, (was, now) in differing.items()]
        if len(named) > _MOST_NAMED:
            named[_MOST_NAMED:] = [f"{len(named) - _MOST_NAMED} more settings that differ"]
        options = [f"--{name} {_shown(now)}" for name, (_, now) in differing.items() if _NOTHING not in differing[name]]
        another = f"worldmodels train --from {shlex.quote(str(directory))} {' '.join(options)}".strip()
        raise UserError(
            f"{directory} was made with {' and '.join(named)}; {go_on}; for a new run that takes over what stays the "
            f"same: {another}"
        )


def _preset_and_options(config: Config) -> str:
    options = {f"env.{key}": shown_option(value) for key, value in config.env.items()}
    return " ".join(f"--{name} {value}" for name, value in {"preset": config.preset, **options}.items())


def _shown(value: Any) -> str:
    """A setting as on the command line."""
    return " ".join(shlex.quote(str(item)) for item in (value if isinstance(value, list) else [value]))


def _with_generations(old: EvolutionConfig, new: EvolutionConfig) -> EvolutionConfig:
    """The old settings with as many generations as the new ones have."""
    phases = {
        name: replace(phase, generations=new.phases[name].generations) if name in new.phases else phase
        for name, phase in old.phases.items()
    }
    return replace(old, phases=phases)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the run's lock; the operating system releases it when the process ends, even if it is killed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Without waiting for the other end, should somebody have put a pipe there.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        file = open(os.open(directory / "lock", flags, 0o666), "rb+", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot use {directory} as a run: {error.strerror}; choose another --run") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"{directory / 'lock'} is not a regular file; remove it, or use another --run")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (file.read(20) or b"").decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{directory} is in use by process {holder}; wait for it, stop it, or use another --run"
            ) from None
        except OSError as error:  # ENOLCK and others, on some network file systems
            raise UserError(
                f"cannot lock {directory / 'lock'}: {error.strerror}; a run needs a file system with file locks, such "
                "as a local disk: use another --run"
            ) from None
        # A fixed width and a single call, so that another process never reads a part of the number.
        os.pwrite(file.fileno(), f"{os.getpid():<20}\n".encode(), 0)
        yield
