"""The latents on disk: one safetensors file per shard of episodes, bound to the V that encoded them."""

from pathlib import Path

import torch
from torch import Tensor

from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, save_tensors
from worldmodels.memory.latents import Latents

_NAMES = ("mu", "logvar", "actions", "rewards", "terminated", "lengths")


def latents_path(directory: Path, index: int) -> Path:
    """Where the latents of shard ``index`` lie."""
    return directory / f"latents-{index:05d}.safetensors"


def save_latents(directory: Path, index: int, latents: Latents, vision_digest: str) -> None:
    """Write the latents of one shard."""
    tensors = {name: getattr(latents, name) for name in _NAMES}
    if latents.action_mask is not None:
        tensors["action_mask"] = latents.action_mask
    save_tensors(latents_path(directory, index), tensors, {"vision": vision_digest})


def load_part(directory: Path, index: int, vision_digest: str) -> dict[str, Tensor]:
    """The latents of shard ``index`` by name; those of another V, and other tensors, are refused."""
    path = latents_path(directory, index)
    tensors, meta = load_tensors(path)
    if meta.get("vision") != vision_digest or set(tensors) - {"action_mask"} != set(_NAMES):
        raise UserError(f"{path} was encoded by another V; delete {directory} and run the encode stage again")
    return tensors


def load_latents(directory: Path, count: int, vision_digest: str) -> Latents:
    """Load the latents of ``count`` shards; those of another V are refused."""
    loaded = [load_part(directory, index, vision_digest) for index in range(count)]
    names = set(_NAMES).union(*loaded)
    if any(set(part) != names for part in loaded):
        raise UserError(f"some latents in {directory} have action masks and some have none; delete it")
    return Latents(**{name: torch.cat([part[name] for part in loaded]) for name in names})
