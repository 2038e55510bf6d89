"""The directory of a stage: the inputs with which it was begun, its duration, and the mark that it is finished."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels.core.errors import UserError
from worldmodels.core.files import disk_errors, read_json, write_json
from worldmodels.core.provenance import differences
from worldmodels.core.storage.mirror import files_of, open_file, written

_HEARTBEAT_SECONDS = 5.0
_PIECE = 1 << 20
_LARGEST = 1e300
UNFINISHED_WORK = ("checkpoint.safetensors", "partial.json")
"""Files of a stage from which unfinished work continues."""


class Stage:
    """A stage, finished if ``done.json`` exists; ``begun.json`` holds the inputs of an unfinished stage."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self._done, self._begun = directory / "done.json", directory / "begun.json"
        self._elapsed = directory / "elapsed.json"

    def result(self, inputs: Mapping[str, Any], free: Collection[str] = ()) -> dict[str, Any] | None:
        """The result that :meth:`finish` wrote, if the stage is finished with these inputs; None if work is left.

        A stage that was begun or finished with other inputs is a :class:`UserError`, because continuing would mix two
        experiments. Inputs in ``free`` (such as "evaluate.episodes") may change; there is then work left.
        """
        before = self._before()
        if before is None:
            return None
        changed = _changed(before["inputs"], inputs)
        refused = [name for name in changed if name not in free]
        if refused:
            raise UserError(
                f"{self.directory} was made with other inputs or settings than the current ones (changed: "
                f"{', '.join(refused)}); delete that folder to redo the stage, or make a new run that takes over what "
                "stays the same: worldmodels train --from RUN"
            )
        return before if "digest" in before and not changed else None

    def finished(self) -> dict[str, Any] | None:
        """The content of ``done.json``: inputs, digest, seconds and metrics; None if the stage is not finished."""
        before = self._before() if self._done.exists() else None
        return before if before is not None and "digest" in before else None

    def _before(self) -> dict[str, Any] | None:
        """The content of ``done.json``, or else of ``begun.json``; None if there is neither."""
        if self._done.exists():
            return self.done()
        if not self._begun.exists():
            return None
        content = read_json(self._begun, checksum=True)
        if not isinstance(content, dict) or not isinstance(content.get("inputs"), dict):
            raise self._lacks(self._begun)
        return content

    def done(self) -> dict[str, Any]:
        """The content of ``done.json``; :class:`UserError` if it is missing or is not the record of a stage.

        inputs, files: dictionaries; digest: text; seconds: a number; metrics: numbers by name.
        """
        content = read_json(self._done, checksum=True)
        wanted = {"inputs": dict, "digest": str, "files": dict, "metrics": dict}
        if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in wanted.items()):
            raise self._lacks(self._done)
        if not all(map(_is_number, [content.get("seconds"), *content["metrics"].values()])):
            raise self._lacks(self._done)
        return content

    def _lacks(self, path: Path) -> UserError:
        return UserError(f"{path} lacks the record of its stage; delete {self.directory} to redo the stage")

    @contextlib.contextmanager
    def begin(self, inputs: Mapping[str, Any], made_with: Mapping[str, Any] | None = None) -> Iterator["Stopwatch"]:
        """A context manager for the work: saves its inputs and counts its seconds, including those of killed processes.

        Unfinished work with other inputs is deleted; the caller must have called :meth:`result`, which refuses inputs
        that must not change. made_with: the provenance of what this process computes. It is recorded with the stage,
        after those of earlier processes whose work is continued.
        """
        with disk_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        before = self._before()
        if before is not None and "digest" in before:
            write_json(self._elapsed, {"seconds": before["seconds"]})
        changed = [] if before is None else _changed(before["inputs"], inputs)
        if changed:
            self._remove(*UNFINISHED_WORK)
        # More generations continue an evolution; after every other change, the work starts again.
        continued = all(name.endswith(".generations") for name in changed)
        records = self.made_with() if continued else []
        if made_with is not None and (not records or differences(records[-1], made_with)):
            records = [*records, dict(made_with)]
        write_json(self._begun, {"inputs": dict(inputs), "made_with": records}, checksum=True)
        self._remove("done.json")
        watch = Stopwatch(self._elapsed)
        try:
            yield watch
        finally:
            watch.stop()
        self.tidy()
        written(self.directory)

    def finish(
        self,
        inputs: Mapping[str, Any],
        outputs: tuple[str, Mapping[str, str]],
        seconds: float,
        metrics: Mapping[str, float],
    ) -> None:
        """Mark the stage finished; ``outputs``: the :func:`digests` of what it wrote."""
        content = {"inputs": dict(inputs), "digest": outputs[0], "files": dict(outputs[1])}
        more = {"seconds": seconds, "metrics": dict(metrics), "made_with": self.made_with()}
        write_json(self._done, content | more, checksum=True)

    def made_with(self) -> list[dict[str, Any]]:
        """The provenance of every process that has worked on the stage, in order, where it differs from the one before.

        Empty if the stage was not begun, or by a version that did not record this.
        """
        before = self._before() or {}
        return list(before.get("made_with", []))

    def tidy(self) -> None:
        """Remove the files that only an unfinished stage needs."""
        self._remove(*UNFINISHED_WORK, "begun.json", "elapsed.json")

    def written(self, digest: str, paths: Sequence[Path], command: str) -> list[Path]:
        """``paths``, if they are unchanged since the finished stage wrote them.

        Otherwise, a :class:`UserError` names the path that is not, and the ``command`` that makes it again.
        """
        total, parts = digests(path for path in paths if path.is_file() or path.is_dir())
        if total == digest:
            return list(paths)
        noted = (self._before() or {}).get("files", {})
        changed = [path for path in paths if parts.get(path.name) != noted.get(path.name)]
        damaged = changed[0] if changed and noted else self.directory
        problem = "is damaged or was replaced since the stage wrote it" if damaged.exists() else "is missing"
        raise UserError(f"{damaged} {problem}; restore it from a copy, or delete it and run: {command}")

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.directory / name).unlink(missing_ok=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the inputs that differ."""
    old, new = flat(before), flat(now)
    # Settings that did not exist then are compared by the run, which knows their defaults.
    return [name for name in old if old[name] != new.get(name)]


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the name of their option: {"vision": {"latent_size": 32}} gives {"vision.latent-size": 32}."""
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", "-")
        values |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return values


def digests(paths: Iterable[Path]) -> tuple[str, dict[str, str]]:
    """SHA-256 of the names and contents of files and folders: of all together, and of each by its name."""
    total, parts = hashlib.sha256(), {}
    for path in paths:
        part = hashlib.sha256()
        files = files_of(path) if path.is_dir() else [path]
        for file in files:
            with open_file(file) as content:
                data = str(file.relative_to(path.parent)).encode()
                while data:
                    total.update(data)
                    part.update(data)
                    data = content.read(_PIECE)
        parts[path.name] = part.hexdigest()
    return total.hexdigest(), parts


class Stopwatch:
    """Counts seconds, including those of earlier processes; a thread saves them every few seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()
        self._earlier = _noted(path)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._earlier + time.monotonic() - self._started

    def _beat(self) -> None:
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            self._note()

    def _note(self) -> None:
        # If the file cannot be written, the stage itself has the same problem and reports it.
        with contextlib.suppress(UserError, OSError):
            write_json(self._path, {"seconds": self.seconds})

    def stop(self) -> None:
        """End the thread and save the seconds."""
        self._stop.set()
        self._thread.join()
        if self._path.parent.is_dir():
            self._note()


def _noted(path: Path) -> float:
    """The seconds of earlier processes; 0 if the file is missing or damaged."""
    try:
        seconds = read_json(path)["seconds"]
    except (UserError, KeyError, TypeError):
        return 0.0
    return float(seconds) if _is_number(seconds) and seconds >= 0 else 0.0
