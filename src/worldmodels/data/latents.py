"""Latents on disk: one safetensors file per shard of episodes, with the digest of the V that encoded them."""

from pathlib import Path

import torch
from torch import Tensor

from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.memory.latents import Latents

_NAMES = ("mu", "logvar", "actions", "rewards", "terminated", "lengths")
_OPTIONAL = ("action_mask", "health")


def latents_path(directory: Path, index: int) -> Path:
    """The path of the latents of shard ``index``."""
    return directory / f"latents-{index:05d}.safetensors"


def save_latents(directory: Path, index: int, latents: Latents, vision_digest: str) -> None:
    """Write the latents of one shard."""
    tensors = {name: getattr(latents, name) for name in _NAMES}
    optional = {name: getattr(latents, name) for name in _OPTIONAL}
    tensors |= {name: value for name, value in optional.items() if value is not None}
    save_tensors(latents_path(directory, index), tensors, {"vision": vision_digest})


def load_part(directory: Path, index: int, vision_digest: str) -> dict[str, Tensor]:
    """The tensors of shard ``index`` by name. Raises :class:`UserError` for those of another V or other tensors."""
    path = latents_path(directory, index)
    tensors, meta = load_tensors(path)
    if meta.get("vision") != vision_digest or set(tensors) - set(_OPTIONAL) != set(_NAMES):
        raise UserError(f"{path} was encoded by another V; delete {directory} and run the encode stage again")
    return tensors


def load_latents(directory: Path, count: int, vision_digest: str) -> Latents:
    """Load the latents of ``count`` shards. Raises :class:`UserError` as :func:`load_part` does."""
    loaded = [load_part(directory, index, vision_digest) for index in range(count)]
    if any("health" in part for part in loaded):  # earlier versions did not record it
        for part in loaded:
            part.setdefault("health", torch.full((len(part["mu"]),), torch.nan))
    names = set(_NAMES).union(*loaded)
    if any(set(part) != names for part in loaded):
        raise UserError(f"only some latents in {directory} have action masks; delete it and run the encode stage again")
    return Latents(**{name: torch.cat([part[name] for part in loaded]) for name in names})
