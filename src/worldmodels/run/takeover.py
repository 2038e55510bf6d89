"""Taking over the finished stages of another run whose inputs are the same, so that only the rest is done again.

The files of a stage become hard links where the file system can, else copies: they stay when the other run is deleted,
and the other run is only read, even while another process continues it.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from worldmodels.core.errors import UserError
from worldmodels.core.events import say
from worldmodels.core.files import new_directory, write_json
from worldmodels.core.settings import option_name
from worldmodels.core.storage.mirror import files_of, open_file, written
from worldmodels.run.artifacts import Artifacts
from worldmodels.run.config import Config
from worldmodels.run.inputs import Inputs, inputs_of_stage
from worldmodels.run.run import read_config
from worldmodels.run.stage import UNFINISHED_WORK, digests, flat

_NOTHING = "nothing"
_LEFT_BEHIND = {"begun.json", "elapsed.json", *UNFINISHED_WORK}
_COPIED = {".json", ".csv"}
"""Kinds of files that are always copied: tables are appended to in place, which a link would do to the other run."""
_MOST_NAMED = 3
_ARTEFACTS = {
    "episodes": "the episodes",
    "episodes.shown": "the episodes",
    "agent": "the agent",
    "agent.digest": "the agent that collects",
    "vision": "V",
    "latents": "the latents",
    "latents.shown": "the latents",
    "memory": "M",
    "dream-models": "the dream models",
    "conditions.device": "the device",
    "conditions.backend": "the backend",
    "conditions.versions": "the versions of packages",
}
"""Inputs that are no settings, in words: digests of what other stages wrote, and the conditions of a score."""


@dataclass(frozen=True)
class Source:
    """A run whose finished stages another run takes over. It is only read, and its lock is not needed."""

    directory: Path
    config: Config

    @classmethod
    def open(cls, directory: Path, task: str, target: Path) -> "Source":
        """The run in ``directory`` as the source of a run of ``task`` in ``target``; else a :class:`UserError`."""
        config = read_config(directory)
        if config is None:
            raise UserError(f"{directory} is not a run: it has no run.json; expected the folder of a run after --from")
        if config.task != task:
            raise UserError(f"{directory} is a run of task {config.task}, not {task}; nothing of it can be taken over")
        if target.resolve() == directory.resolve():
            raise UserError(f"expected another folder than {directory} for the new run; choose another --run")
        return cls(directory, config)

    def take_over(self, name: str, target: Artifacts, inputs: Inputs, device: torch.device) -> bool:
        """Take over a stage that ``target`` has not begun, if it is finished here with the same inputs.

        Says in a line what was taken over, or why the stage must be done again. Returns whether it was taken over
        as it is; an evolution that is to have more generations is taken over too, but then work is left.
        """
        stage = target.stage(name)
        if stage.directory.exists() and any(stage.directory.iterdir()):
            return False
        here = replace(target, directory=self.directory, run_config=self.config)
        label = _label(name, target)
        try:
            done = here.stage(name).finished()
            if done is None:
                say(f"{label}: not taken over, because {self.directory} has not finished it")
                return False
            changed = self._changed(name, here, done["inputs"], inputs, device)
            longer = name == "controller" and set(changed) <= set(inputs.free) and _grown(changed)
            if changed and not longer:
                say(f"{label}: done again, because {self._reason(changed)}")
                return False
            self._copy(here, target, name, done)
            written(stage.directory)
        except _Unusable as problem:
            say(f"{label}: done again, because {problem}")
            return False
        say(
            f"{label}: taken over from {self.directory}{f' to be continued: {self._reason(changed)}' if longer else ''}"
        )
        return not longer

    def _changed(
        self, name: str, here: Artifacts, recorded: Any, inputs: Inputs, device: torch.device
    ) -> dict[str, tuple[Any, Any]]:
        """The inputs that differ, by their flat names: their values in this run and in the new one."""
        before, now = flat(recorded), flat(inputs.values)
        if not now.keys() <= before.keys():
            # Settings that did not exist when the stage was finished have had their default.
            try:
                before = flat(inputs_of_stage(here, name, device).values) | before
            except UserError as error:
                raise _Unusable(str(error)) from None
        values = {key: (before.get(key, _NOTHING), now.get(key, _NOTHING)) for key in before | now}
        return {key: (old, new) for key, (old, new) in values.items() if old != new}

    def _reason(self, changed: dict[str, tuple[Any, Any]]) -> str:
        settings = [
            f"{option_name(key)} is {_shown(new)}, not {_shown(old)}"
            for key, (old, new) in changed.items()
            if key not in _ARTEFACTS
        ]
        others = list(dict.fromkeys(words for key, words in _ARTEFACTS.items() if key in changed))
        parts = settings[:_MOST_NAMED]
        if len(settings) > _MOST_NAMED:
            parts.append(f"{len(settings) - _MOST_NAMED} more settings differ")
        if others:
            plural = len(others) > 1 or others[0].endswith("s")
            parts.append(f"{', '.join(others)} {'are' if plural else 'is'} new")
        return ", ".join(parts)

    def _copy(self, here: Artifacts, target: Artifacts, name: str, done: dict[str, Any]) -> None:
        """Copy the stage into a folder that appears only when it is complete and its digest has been verified."""
        stage = here.stage(name)
        with new_directory(target.stage(name).directory) as temporary:
            for file in _files(stage.directory):
                copy = temporary / file.relative_to(stage.directory)
                copy.parent.mkdir(parents=True, exist_ok=True)
                # The process that continues this run may remove files meanwhile; the digest tells whether all are here.
                with contextlib.suppress(FileNotFoundError):
                    _link_or_copy(file, copy)
            outputs = [temporary / path.name for path in target.outputs(name)]
            total, _ = digests(path for path in outputs if path.exists())
            if total != done["digest"] or stage.finished() != done:
                raise _Unusable(f"its files in {stage.directory} are damaged or have changed")
            write_json(temporary / "done.json", done | {"taken_over_from": str(self.directory)}, checksum=True)


class _Unusable(Exception):
    """A finished stage cannot be taken over, for the reason in the message."""


def _label(name: str, target: Artifacts) -> str:
    """The stage in messages, with the number of its round if there are several, and that of its dream model."""
    model = f", dream model {target.dream_model}" if target.dream_model else ""
    return f"{name}{f' {target.round}' if target.config.rounds > 1 else ''}{model}"


def _grown(changed: dict[str, tuple[Any, Any]]) -> bool:
    """Whether there is a change, and all changed numbers are larger than before."""
    pairs = changed.values()
    return bool(changed) and all(isinstance(old, int) and isinstance(new, int) and new > old for old, new in pairs)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _files(directory: Path) -> Iterator[Path]:
    """The files of a stage, without those that only unfinished work needs and without temporary ones."""
    for path in files_of(directory):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if not hidden and path.name not in _LEFT_BEHIND:
            yield path


def _link_or_copy(source: Path, target: Path) -> None:
    if source.suffix not in _COPIED:
        with contextlib.suppress(OSError):
            os.link(os.path.realpath(source), target)
            return
    with open_file(source) as read, open(target, "wb") as copy:
        shutil.copyfileobj(read, copy)


def beside(source: Path, config: Config) -> Path:
    """The folder of a new run for which none was chosen: RUN-2, RUN-3 ..., the first that is free or has this config.

    config: the settings of the new run with the task's defaults filled in; the same command therefore finds its run
    again.
    """
    source, number = source if source.name not in ("", "..") else source.resolve(), 2
    while True:
        folder = source.with_name(f"{source.name}-{number}")
        # A process that was killed before it could write run.json leaves no more than these.
        if not folder.exists() or all(path.name.startswith(("lock", ".run.json.")) for path in folder.iterdir()):
            return folder
        with contextlib.suppress(UserError):
            if read_config(folder) == config:
                return folder
        number += 1
