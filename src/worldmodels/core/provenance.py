"""What results are made with: versions of packages, the processor, the number of threads, and the device."""

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from worldmodels.core.cores import usable_cores
from worldmodels.core.device import fast_bfloat16, processor_features

_PACKAGES = ("worldmodels", "torch", "numpy", "gymnasium")
_DECISIVE = ("device", "gpu", "dtype", "cpu", "cpu_features", "torch_threads")
"""Entries, beside the versions of packages, on which the bits of numbers depend."""
_NOTHING = "none"


def provenance(device: torch.device, modules: Sequence[str] = ()) -> dict[str, Any]:
    """What a result that is computed now, on this device, is made with; JSON-able.

    modules: names of other modules that it depends on, such as those of a simulator. Keys: versions (of Python and of
    packages, by name), platform, cpu (the model), cpu_features (instructions that change numbers), cores (that this
    process may use), torch_threads, device ("cpu" or "cuda"), gpu (its name, or None) and dtype (of networks).
    """
    return {
        "versions": {"python": platform.python_version()} | versions(modules),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_features": list(processor_features()),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "dtype": "bfloat16" if fast_bfloat16(device) else "float32",
    }


def versions(modules: Sequence[str] = ()) -> dict[str, str]:
    """Versions of this package, of the libraries on which all results depend, and of the packages of ``modules``.

    By the name of the package, in lower case; packages that are not installed are left out.
    """
    found = {}
    for name in dict.fromkeys((*_PACKAGES, *modules)):
        for package in _packages_of(name):
            found[package.lower()] = metadata.version(package)
    return found


@cache
def _packages_of(module: str) -> tuple[str, ...]:
    """The installed packages that contain a module, most of which have its name."""
    try:
        metadata.version(module)
        return (module,)
    except metadata.PackageNotFoundError:
        return tuple(dict.fromkeys(metadata.packages_distributions().get(module, ())))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two results of :func:`provenance` and changes numbers: "torch_threads 2, now 1" and so on.

    The version of Python, the operating system and the number of cores change no numbers.
    """
    old, new = (_decisive(one) for one in (before, now))
    return [
        f"{name} {old.get(name, _NOTHING)}, now {new.get(name, _NOTHING)}"
        for name in old | new
        if old.get(name, _NOTHING) != new.get(name, _NOTHING)
    ]


def _decisive(record: Mapping[str, Any]) -> dict[str, str]:
    """The entries on which numbers depend, as texts."""
    entries = {name: record.get(name) for name in _DECISIVE}
    texts = {
        name: " ".join(value) if isinstance(value, list) else _NOTHING if value is None else str(value)
        for name, value in entries.items()
    }
    packages = record.get("versions", {})
    return texts | {name: str(version) for name, version in packages.items() if name != "python"}


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
