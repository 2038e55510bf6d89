"""The dataset encoded by one V: mu, logvar, actions, rewards, ends and masks, one safetensors file per flush."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from worldmodels.errors import UserError
from worldmodels.storage.atomic import load_tensors, save_tensors

_NAMES = ("mu", "logvar", "actions", "rewards", "terminated", "lengths")


@dataclass(frozen=True)
class Latents:
    """All episodes, one after the other.

    mu, logvar: (F, Z) float16, T+1 rows for an episode of T actions; actions: (S, A) float32 and rewards: (S,) float32,
    T rows; terminated: (E,) uint8; lengths: (E,) int64; allowed: (F, C) uint8, the controls that may be chosen, or None
    where all always may.
    """

    mu: Tensor
    logvar: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor
    allowed: Tensor | None = None


def latents_path(directory: Path, index: int) -> Path:
    """Where the latents of flush ``index`` lie."""
    return directory / f"latents-{index:05d}.safetensors"


def save_latents(directory: Path, index: int, latents: Latents, vision_digest: str) -> None:
    """Write the latents of one flush."""
    tensors = {name: getattr(latents, name) for name in _NAMES}
    if latents.allowed is not None:
        tensors["allowed"] = latents.allowed
    save_tensors(latents_path(directory, index), tensors, {"vision": vision_digest})


def load_part(directory: Path, index: int, vision_digest: str) -> dict[str, Tensor]:
    """The latents of flush ``index`` by name; those of another V, and other tensors, are refused."""
    path = latents_path(directory, index)
    tensors, meta = load_tensors(path)
    if meta.get("vision") != vision_digest or set(tensors) - {"allowed"} != set(_NAMES):
        raise UserError(f"{path} was encoded by another V; delete {directory} and run the encode stage again")
    return tensors


def load_latents(directory: Path, count: int, vision_digest: str) -> Latents:
    """Load the latents of ``count`` flushes; those of another V are refused."""
    loaded = [load_part(directory, index, vision_digest) for index in range(count)]
    names = set(_NAMES).union(*loaded)
    if any(set(part) != names for part in loaded):
        raise UserError(f"some latents in {directory} know which controls are allowed and some do not; delete it")
    return Latents(**{name: torch.cat([part[name] for part in loaded]) for name in names})
