"""A run: one directory that holds everything of an experiment, used by one process at a time.

run.json                     the resolved configuration
round-1/episodes/            what collect wrote; likewise vision/, latents/, memory/, controller/, evaluation/
round-1/vision/done.json     written last: the stage is finished, from these inputs, with this result
agent/                       the finished agent
summary.json, curves.png     what came of it
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldmodels.config import Config, from_json, to_json
from worldmodels.errors import UserError
from worldmodels.storage.atomic import read_json, write_json

_HEARTBEAT_SECONDS = 5.0


class Run:
    """An open run. Use :meth:`open` as a context manager; it holds the lock."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.directory, self.config = directory, config

    @classmethod
    @contextmanager
    def open(cls, directory: Path, config: Config) -> Iterator["Run"]:
        """Create the run or continue it. One made with another task or other settings, or in use, is refused."""
        with _locked(directory):
            path = directory / "run.json"
            if path.exists():
                _same(directory, from_json(read_json(path, checksum=True)), config)
            elif any(directory.glob("round-*")):
                raise UserError(f"{directory} holds stages but no run.json; restore it, or use another --run")
            write_json(path, to_json(config), checksum=True)
            yield cls(directory, config)

    def stage(self, name: str, round_number: int = 1) -> "Stage":
        """The directory of a stage."""
        return Stage(name, self.directory / f"round-{round_number}" / name)


def read_config(directory: Path) -> Config | None:
    """The configuration of an existing run, or None."""
    path = directory / "run.json"
    return from_json(read_json(path, checksum=True)) if path.exists() else None


def _same(directory: Path, old: Config, new: Config) -> None:
    if old.task != new.task:
        raise UserError(f"{directory} is a run of task {old.task}, not {new.task}; use another --run")
    if old.preset != new.preset:
        raise UserError(
            f"{directory} was made with --preset {old.preset}, not {new.preset}; use another --run or that preset"
        )
    # More generations, rounds or evaluation episodes continue a run; every other change would mix two experiments.
    controller = replace(old.controller, generations=new.controller.generations)
    grown = replace(old, rounds=new.rounds, controller=controller, evaluate=new.evaluate)
    if grown != new:
        before, after = _flat(to_json(grown)), _flat(to_json(new))
        name = next(key for key in before if before[key] != after[key])
        raise UserError(
            f"{directory} was made with --{name} {before[name]}, not {after[name]}; use another --run or that value"
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", "-")
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the run's lock; the system frees it when the process ends, however it ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot use {directory} as a run: {error.strerror}; choose another --run") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise UserError(
                f"{directory} is in use by process {holder}; wait for it, stop it, or use another --run"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class Stage:
    """One stage's directory: finished when ``done.json`` is there."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory

    @property
    def _done(self) -> Path:
        return self.directory / "done.json"

    def result(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What :meth:`finish` was given, if the stage is finished with these inputs; None if it is not finished.

        Finished with other inputs: :class:`UserError`, because going on would mix two experiments.
        """
        if not self._done.exists():
            return None
        content: dict[str, Any] = read_json(self._done, checksum=True)
        if content.get("inputs") != dict(inputs):
            raise UserError(
                f"{self.directory} was made from other inputs or settings than those of now; "
                f"delete that folder to redo the stage, or use another --run"
            )
        return content

    def finish(self, inputs: Mapping[str, Any], digest: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """Mark the stage finished; ``digest`` identifies what it wrote."""
        content = {"inputs": dict(inputs), "digest": digest, "seconds": seconds, "metrics": dict(metrics)}
        write_json(self._done, content, checksum=True)
        (self.directory / "checkpoint.safetensors").unlink(missing_ok=True)
        (self.directory / "elapsed.json").unlink(missing_ok=True)

    @contextmanager
    def stopwatch(self) -> Iterator["Stopwatch"]:
        """Count the stage's seconds over all the processes that worked on it, killed ones included."""
        self.directory.mkdir(parents=True, exist_ok=True)
        watch = Stopwatch(self.directory / "elapsed.json")
        try:
            yield watch
        finally:
            watch.stop()


class Stopwatch:
    """Seconds since the start, plus those of earlier processes; a thread notes them every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()
        self._before = float(read_json(path)["seconds"]) if path.exists() else 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._started

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            self._note()

    def _note(self) -> None:
        try:
            write_json(self._path, {"seconds": self.seconds})
        except (UserError, OSError):
            return  # the stage itself meets the same trouble and says so

    def stop(self) -> None:
        """End the thread and note the time."""
        self._stop.set()
        self._thread.join()
        if self._path.parent.is_dir() and not (self._path.parent / "done.json").exists():
            self._note()
