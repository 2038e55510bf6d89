"""Recordings of other programs, one ``.npz`` file per episode, as episodes of a task.

Three layouts are told apart by the names of the arrays and by their lengths. T actions come with

- T+1 observations: observation t is seen before action t, the last one after the last action (this package, Minari);
- T observations, seen *before* their actions (the authors' code of 2018, with the names obs and action): the
  observation after the last action is missing;
- T observations, seen *after* their actions (the names observations, actions, rewards and terminals): the observation
  before the first action is missing.

Legend: T actions, A numbers that encode an action for M.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldmodels.core import interrupt
from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Episode
from worldmodels.data.exchange.actions import memory_numbers
from worldmodels.data.exchange.archive import Archive
from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.data.exchange.health import checked_health
from worldmodels.data.exchange.pictures import Pictures
from worldmodels.tasks import Task

RENDERER = "imported"
"""The name that imported episodes have in place of their backend's."""
MOST_STEPS = 200_000
"""Longest episode that is read, in steps; its frames take 2.5 GB."""
_NAMES = {
    "obs": ("obs", "observations", "observation"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "done": ("done", "dones", "terminals", "terminated", "terminations"),
    "truncated": ("truncated", "truncations"),
    "health": ("health",),
}


@dataclass(frozen=True)
class Recording:
    """A file whose headers have been checked.

    names: of its arrays, by "obs", "action", "reward" and so on; checksums: of all its arrays, to tell it from others.
    """

    path: Path
    names: dict[str, str]
    observations: int
    actions: int
    align: str
    checksums: tuple[int, ...]

    @property
    def frames(self) -> int:
        """Most frames of its episode."""
        return self.actions + 1


def scan(directory: Path, settings: RecordingConfig) -> list[Recording]:
    """The recordings of a folder, in the order of their names, after a look at the headers of all.

    Raises :class:`UserError` for a folder without any, and for the first file that holds no episode.
    """
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        raise UserError(f"no .npz files in {directory}; expected one per episode, with the arrays obs and action")
    found = []
    for path in paths:
        interrupt.check()
        try:
            found.append(_look(path, settings))
        except Exception as error:  # zip, its codecs and NumPy each raise their own kinds
            raise _refused(path, error) from None
    for name in ("reward", "done"):
        with_it = [name in recording.names for recording in found]
        if any(with_it) and not all(with_it):
            path = found[with_it.index(False)].path
            raise UserError(f"{path} has no {name}, which others in {directory} have; import them separately")
    return found


def _refused(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} is not an episode: {reason}; nothing of it was imported")


def _look(path: Path, settings: RecordingConfig) -> Recording:
    with Archive(path) as archive:
        names = {}
        for what, known in _NAMES.items():
            there = [name for name in known if name in archive.names]
            if len(there) > 1:
                raise ValueError(f"it has both {' and '.join(there)}")
            if there:
                names[what] = there[0]
        missing = [what for what in ("obs", "action") if what not in names]
        if missing:
            raise ValueError(f"it has no {' and no '.join(missing)}; found {', '.join(archive.names) or 'nothing'}")
        # A health is looked at where it is read: other programs may call something else so.
        headers = {what: archive.header(name) for what, name in names.items() if what != "health"}
        checksums = archive.checksums
    Pictures.check(headers["obs"].shape[1:], headers["obs"].dtype)
    actions, observations = (headers[what].shape[0] if headers[what].shape else 0 for what in ("action", "obs"))
    if not 1 <= actions <= MOST_STEPS or observations not in (actions, actions + 1):
        raise ValueError(
            f"expected 1 to {MOST_STEPS:,} actions, and as many observations or one more, got {actions:,} actions and "
            f"{observations:,} observations"
        )
    for what in ("reward", "done", "truncated"):
        if what in headers and headers[what].shape not in ((actions,), (actions, 1)):
            raise ValueError(f"expected {names[what]} of shape {(actions,)}, got {headers[what].shape}")
    if observations == actions == 1:
        raise ValueError("a single observation with a single action is no transition")
    align = "whole" if observations == actions + 1 else settings.align
    if align == "auto":
        align = "after" if names.get("done") == "terminals" else "before"
    return Recording(path, names, observations, actions, align, checksums)


def read_recording(recording: Recording, task: Task, settings: RecordingConfig, seed: int) -> Episode:
    """The episode of a recording; a :class:`UserError` names a file that holds none.

    Actions are encoded as M sees them. Missing rewards are those of the task's dreams, or 0. Where the last observation
    is missing, the last action is left out, too; but if the world ended the episode there, the observation before is
    repeated, so that the end and its reward stay at their action. Where the first observation is missing, the first
    action and its reward are left out. A health is read for worlds that tell it, one number for each observation; at an
    observation that is repeated it is not known.
    """
    try:
        with Archive(recording.path) as archive:
            return _episode(archive, recording, task, settings, seed)
    except (interrupt.Interrupted, MemoryError):
        raise
    except Exception as error:
        raise _refused(recording.path, error) from None


def _episode(archive: Archive, recording: Recording, task: Task, settings: RecordingConfig, seed: int) -> Episode:
    names, steps = recording.names, recording.actions
    actions = memory_numbers(task, archive.read(names["action"]))
    if "reward" in names:
        rewards = archive.read(names["reward"]).reshape(-1).astype(np.float32)
        if not np.isfinite(rewards).all():
            raise ValueError(f"{names['reward']} holds NaN or infinity")
    else:
        rewards = np.full(steps, task.alive_reward or 0.0, np.float32)
    terminated = _terminated(archive, recording, task, settings)
    header = archive.header(names["obs"])
    pictures, together = (
        Pictures(task, settings.fit, header.shape[1:]),
        Pictures.together(header.shape[1:], header.dtype),
    )
    frames = np.empty((recording.observations + 1, 64, 64, 3), np.uint8)
    at = 0
    for block in archive.blocks(names["obs"], together):
        interrupt.check()
        frames[at : at + len(block)] = pictures.frames(block)
        at += len(block)
    frames[at] = frames[at - 1]
    health = None
    if "health" in names and task.full_health is not None:
        told = archive.read(names["health"])
        health = np.append(checked_health(told, recording.observations), np.float32(np.nan))
    if recording.align == "after":
        actions, rewards = actions[1:], rewards[1:]
    elif recording.align == "before" and not terminated:
        actions, rewards = actions[:-1], rewards[:-1]
    kept = len(actions) + 1
    return Episode(
        frames[:kept], actions, rewards, terminated, seed, RENDERER, None if health is None else health[:kept]
    )


def _terminated(archive: Archive, recording: Recording, task: Task, settings: RecordingConfig) -> bool:
    """Whether the world ended the episode. A plain done that is truncated, or at the task's limit, is the limit's."""
    names, shorter = recording.names, recording.actions < task.max_steps
    if "done" not in names:
        return settings.ends == "world" and shorter
    done = archive.read(names["done"]).reshape(-1)
    if not np.isin(done, (0, 1)).all():
        raise ValueError(f"expected {names['done']} of 0 and 1, got other numbers")
    early = np.flatnonzero(done[:-1])
    if len(early):
        raise ValueError(
            f"{names['done']} says that it ended after action {early[0]} of {len(done)}; expected one episode per file"
        )
    if names["done"].startswith("terminat"):
        return bool(done[-1])
    if "truncated" in names:  # a plain done may say that either of them ended it
        return bool(done[-1]) and not archive.read(names["truncated"]).reshape(-1)[-1]
    return bool(done[-1]) and (shorter or task.max_steps < 1)


def lacking(recordings: Sequence[Recording], task: Task, settings: RecordingConfig) -> tuple[str, ...]:
    """What M cannot learn from the recordings: "rewards" that nothing says, and "ends"."""
    names = recordings[0].names
    lacks = []
    if "reward" not in names and task.alive_reward is None:
        lacks.append("rewards")
    if "done" not in names and settings.ends == "auto":
        lacks.append("ends")
    return tuple(lacks)
