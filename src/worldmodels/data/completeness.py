"""Checks that a stored shard holds exactly the episodes that were to be recorded, before it is taken as recorded."""

from collections.abc import Sequence
from pathlib import Path

from worldmodels.core import interrupt
from worldmodels.core.chunks import FRAME_CHUNK
from worldmodels.core.errors import UserError
from worldmodels.data.episodes import Shard

_FRAMES = 32 * FRAME_CHUNK
"""Frames that are read at once."""


def missing_from(path: Path, seeds: Sequence[int], steps: int, backend: str, action_size: int) -> str:
    """What is wrong with a stored shard, in words; empty for a complete one.

    It must hold one episode of 1 to ``steps`` steps for each of ``seeds``, in order, recorded on ``backend``, with
    frames (64, 64, 3) uint8, actions of ``action_size`` numbers, and finite rewards. Every byte is read, so that the
    checksums of all chunks are verified.
    """
    try:
        shard = Shard(path)
        for start in range(0, shard.num_frames, _FRAMES):
            interrupt.check()
            shard.frames(start, min(start + _FRAMES, shard.num_frames))
    except UserError as error:
        return str(error).partition("(")[2].rpartition(")")[0] or str(error)
    if shard.frame_shape != (64, 64, 3) or shard.actions.shape[1] != action_size:
        return f"frames have the shape {shard.frame_shape} and actions {shard.actions.shape[1]} numbers"
    if shard.seeds.tolist() != list(seeds) or shard.renderer != backend:
        return "it holds other episodes"
    if shard.lengths.min() < 1 or shard.lengths.max() > steps or shard.terminated.max() > 1:
        return "the lengths or the ends of its episodes are wrong"
    return ""
