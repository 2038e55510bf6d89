"""The machine on which something was measured, and the versions with which."""

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
    """A dictionary with cpu, cores, torch_threads, gpu, dtype, openmp, load and versions.

    openmp: the environment variables of OpenMP; load: the load average before the start (None where unknown); versions:
    of this package, Python, and the libraries on which the speed depends, the task's simulators included.
    """
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "dtype": dtype_name(dtype_of(device)),
        # They say how long idle threads of PyTorch spin, which takes time from those of the simulator.
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
    # The distribution that a module belongs to may have another name.
    distributions = metadata.packages_distributions() if modules else {}
    names = [*_PACKAGES, *(name for module in modules for name in distributions.get(module, ()))]
    versions = {}
    for name in dict.fromkeys(names):
        try:
            versions[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def notes(about: dict[str, Any]) -> list[str]:
    """A warning if other work was using the machine; ``about``: a result of :func:`machine`."""
    load, cores = about["load"], about["cores"]
    if load is None or load < 0.25 * cores:
        return []
    return [f"other work was running (load average {load:.1f} on {cores} cores): do not trust these figures"]


def caption(about: dict[str, Any], *more: str) -> str:
    """The lines below a table: the machine, then the lines ``more``."""
    return "\n".join([f"{about['cpu']}, {about['cores']} cores, {about['gpu'] or 'no GPU'}", *more])
