"""The machine on which something was measured, and the versions with which."""

import os
from typing import Any

import torch

from worldmodels.core.provenance import provenance
from worldmodels.tasks import Task

_OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def machine(device: torch.device, task: Task) -> dict[str, Any]:
    """What :func:`provenance` says of this device and all of the task's simulators, with openmp and load.

    openmp: the environment variables of OpenMP; load: the load average before the start (None where unknown).
    """
    return provenance(device, [module for world in task.worlds.values() for module in world.requires]) | {
        # They say how long idle threads of PyTorch spin, which takes time from those of the simulator.
        "openmp": {name: os.environ[name] for name in _OPENMP if name in os.environ},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def notes(about: dict[str, Any]) -> list[str]:
    """A warning if other work was using the machine; ``about``: a result of :func:`machine`."""
    load, cores = about["load"], about["cores"]
    if load is None or load < 0.25 * cores:
        return []
    return [f"other work was running (load average {load:.1f} on {cores} cores): do not trust these figures"]


def caption(about: dict[str, Any], *more: str) -> str:
    """The lines below a table: the machine, then the lines ``more``."""
    return "\n".join([f"{about['cpu']}, {about['cores']} cores, {about['gpu'] or 'no GPU'}", *more])
