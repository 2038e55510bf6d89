"""Measuring in turns, and saying on what machine."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from worldmodels import __version__
from worldmodels.agent import Agent, controller_size, load_agent, shipped_agents
from worldmodels.core import interrupt
from worldmodels.core.cores import usable_cores
from worldmodels.core.device import choose_device, fast_bfloat16
from worldmodels.core.progress import Progress
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.run.presets import preset
from worldmodels.tasks import Task
from worldmodels.vision.conv_vae import ConvVAE

Measure = Callable[[], Mapping[str, float]]
"""Measures once, after a short warm-up of its own, and returns numbers by name."""

_PACKAGES = ("torch", "numpy", "gymnasium", "envpool", "box2d", "pygame-ce")
_OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@dataclass(frozen=True)
class Spread:
    """What the repeats of one measurement gave, in their order."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to report."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        """median, min, max and the values in their order."""
        return {
            "median": self.median, "min": min(self.values), "max": max(self.values), "values": list(self.values)
        }  # fmt: skip


def interleaved(measures: Sequence[Measure], repeats: int) -> dict[str, Spread]:
    """Measure A B C A B C ..., so that what else the machine does meets all of them alike."""
    values: dict[str, list[float]] = {}
    with Progress(repeats * len(measures), "bench", "measurements") as bar:
        for _ in range(repeats):
            for measure in measures:
                interrupt.check()
                for name, value in measure().items():
                    values.setdefault(name, []).append(float(value))
                bar.advance()
    return {name: Spread(tuple(some)) for name, some in values.items()}


def seconds_of(work: Callable[[], Any], times: int, warmup: int, device: torch.device) -> float:
    """Seconds for ``times`` calls after ``warmup`` calls that are not counted; waits for a GPU to finish."""
    for _ in range(warmup):
        work()
    _wait_for(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    _wait_for(device)
    return time.perf_counter() - began


def peak_gflops(device: torch.device, size: int = 2048, times: int = 24) -> float:
    """Rate of the product of two square matrices in the fastest dtype of the device."""
    a, b = (torch.randn(size, size).to(device, dtype_of(device)) for _ in range(2))
    out = torch.empty_like(a)
    seconds = seconds_of(lambda: torch.mm(a, b, out=out), times, 3, device)
    return times * 2 * size**3 / seconds / 1e9


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def agent_for(task: Task) -> Agent:
    """The shipped agent, or an untrained one of the standard sizes: speed does not depend on the weights."""
    device = choose_device("auto")
    if task.name in shipped_agents():
        return load_agent(task.name, device.type)
    torch.manual_seed(1)
    standard = preset("standard", task.name)
    vision = ConvVAE(standard.vision.latent_size)
    memory = MDNRNN(
        standard.vision.latent_size,
        task.action_size,
        standard.memory.hidden_size,
        standard.memory.mixtures,
        task.predicts_reward,
        task.predicts_end,
        task.control_size if task.masked else 0,
    )
    controller = torch.zeros(controller_size(task, vision, memory, task.features))
    return Agent(task, vision.to(device), memory.to(device), controller, info={"untrained": True})


def dtype_of(device: torch.device) -> torch.dtype:
    """The dtype in which V runs here."""
    return torch.bfloat16 if fast_bfloat16(device) else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """bfloat16 or float32."""
    return str(dtype).removeprefix("torch.")


def machine(device: torch.device) -> dict[str, Any]:
    """cpu, cores, torch_threads, gpu, dtype, openmp (its variables), load (average before the start), and versions."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "dtype": dtype_name(dtype_of(device)),
        # How long idle threads of PyTorch spin decides what they take away from the simulator's.
        "openmp": {name: os.environ[name] for name in _OPENMP if name in os.environ},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {"worldmodels": __version__, "python": platform.python_version()} | _versions(),
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def busy_note(load: float | None, cores: int) -> list[str]:
    """What to say when other work took part of the machine."""
    if load is None or load < 0.25 * cores:
        return []
    return [f"other work was running (load average {load:.1f} on {cores} cores): do not trust these figures"]
