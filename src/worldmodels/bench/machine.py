"""On what machine, and with which versions, something was measured."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from worldmodels import __version__
from worldmodels.bench.measure import dtype_name, dtype_of
from worldmodels.core.cores import usable_cores
from worldmodels.tasks import Task
from worldmodels.tasks.base import EnvPoolWorld, ProcessWorld

_PACKAGES = ("torch", "numpy", "gymnasium")
_OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def machine(device: torch.device, task: Task) -> dict[str, Any]:
    """cpu, cores, torch_threads, gpu, dtype, openmp (its variables), load (average before the start), and versions.

    The versions are those of this package, Python, and the libraries that count, the task's simulators among them.
    """
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "dtype": dtype_name(dtype_of(device)),
        # How long idle threads of PyTorch spin decides what they take away from the simulator's.
        "openmp": {name: os.environ[name] for name in _OPENMP if name in os.environ},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {"worldmodels": __version__, "python": platform.python_version()} | _versions(task),
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions(task: Task) -> dict[str, str]:
    modules: list[str] = []
    for world in task.worlds.values():
        if isinstance(world, EnvPoolWorld):
            modules.append("envpool")
        elif isinstance(world, ProcessWorld):
            modules.extend(world.requires)
    # A module may come from a distribution of another name.
    distributions = metadata.packages_distributions() if modules else {}
    names = [*_PACKAGES, *(name for module in modules for name in distributions.get(module, ()))]
    found = {}
    for name in dict.fromkeys(names):
        try:
            found[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def notes(about: dict[str, Any]) -> list[str]:
    """What to say when other work took part of the machine; ``about``: what :func:`machine` gave."""
    load, cores = about["load"], about["cores"]
    if load is None or load < 0.25 * cores:
        return []
    return [f"other work was running (load average {load:.1f} on {cores} cores): do not trust these figures"]


def caption(about: dict[str, Any], *more: str) -> str:
    """The lines below a table: the machine, and what else there is to say."""
    return "\n".join([f"{about['cpu']}, {about['cores']} cores, {about['gpu'] or 'no GPU'}", *more])
