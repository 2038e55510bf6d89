"""Settings with which the files of other programs are read. This module is fast to import."""

from dataclasses import dataclass

from worldmodels.core.settings import choice


@dataclass(frozen=True)
class RecordingConfig:
    """How the files of other programs are read."""

    fit: str = choice("auto", "auto", "stretch", "crop")
    """How observations become 64x64 pixels: auto makes the task's own frames of pictures of the size that its world
    has, leaves 64x64 ones as they are and stretches others; stretch resizes the whole picture, whatever its shape; crop
    keeps the square in its middle."""
    align: str = choice("auto", "auto", "before", "after")
    """For files with as many observations as actions, whether observation t was seen before action t (the 2018 authors'
    files) or after it; auto takes files with the array terminals for after, all others for before."""
    ends: str = choice("auto", "auto", "world", "limit")
    """For files that do not say what ended them: world takes every episode shorter than the task's limit as ended by
    the world, limit takes every one as cut off, and auto trains an M that predicts no ends."""
