"""Measuring in turns, and the agents and simulators that are measured."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import torch

from worldmodels.agent import Agent, load_agent, untrained_agent
from worldmodels.agent_files import shipped_names
from worldmodels.core import interrupt
from worldmodels.core.device import choose_device, fast_bfloat16
from worldmodels.core.errors import UserError
from worldmodels.core.progress import Progress
from worldmodels.execution.environments import make_envs
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.run.presets import preset
from worldmodels.tasks import Task
from worldmodels.tasks.base import playing_of
from worldmodels.vision.base import make_vision

Measure = Callable[[], Mapping[str, float]]
"""Measures once, after a short warm-up of its own, and returns numbers by name."""


@dataclass(frozen=True)
class Spread:
    """The results of the repeats of one measurement, in order."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to report."""
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        """A dictionary with median, min, max and the values in order."""
        return {
            "median": self.median, "min": min(self.values), "max": max(self.values), "values": list(self.values)
        }  # fmt: skip


def interleaved(measures: Sequence[Measure], repeats: int) -> dict[str, Spread]:
    """Measure A B C A B C ..., so that other work on the machine affects all measurements alike."""
    values: dict[str, list[float]] = {}
    with Progress(repeats * len(measures), "bench", "measurements") as bar:
        for _ in range(repeats):
            for measure in measures:
                interrupt.check()
                for name, value in measure().items():
                    values.setdefault(name, []).append(float(value))
                bar.advance()
    return {name: Spread(tuple(repeated)) for name, repeated in values.items()}


def seconds_of(work: Callable[[], Any], times: int, warmup: int, device: torch.device) -> float:
    """Seconds for ``times`` calls after ``warmup`` calls that are not counted; waits for a GPU to finish."""
    for _ in range(warmup):
        work()
    wait_for(device)
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    return time.perf_counter() - began


def peak_gflops(device: torch.device, size: int = 2048, times: int = 24) -> float:
    """GFLOP per second of the product of two square matrices in the fastest dtype of the device."""
    a, b = (torch.randn(size, size).to(device, dtype_of(device)) for _ in range(2))
    out = torch.empty_like(a)
    seconds = seconds_of(lambda: torch.mm(a, b, out=out), times, 3, device)
    return times * 2 * size**3 / seconds / 1e9


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has finished its work; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def dtype_of(device: torch.device) -> torch.dtype:
    """The dtype in which V runs on this device."""
    return torch.bfloat16 if fast_bfloat16(device) else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """bfloat16 or float32."""
    return str(dtype).removeprefix("torch.")


def agent_for(task: Task) -> Agent:
    """The shipped agent, or an untrained one of the standard sizes: speed does not depend on the weights."""
    device = choose_device("auto")
    if task.name in shipped_names():
        return load_agent(task.name, device.type)
    standard = preset("standard", task.name, task.options, task.facts)
    latent, sizes = standard.vision.latent_size, standard.memory
    heads = task.predicts_reward, task.predicts_end, task.control_size if task.masked else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vision = make_vision(standard.vision.model, latent).to(device)
        memory = MDNRNN(latent, task.action_size, sizes.hidden_size, sizes.mixtures, *heads).to(device)
    agent = untrained_agent(task, vision, memory, standard.controller.inputs or None)
    agent.info["untrained"] = True
    return agent


def kind_of(agent: Agent) -> str:
    """Whether an agent of :func:`agent_for` is the shipped one or an untrained one."""
    return "untrained" if agent.info.get("untrained") else "shipped"


def fastest_backend(task: Task) -> tuple[str, list[str]]:
    """The fastest backend that works on this machine, and a note for each faster one that does not.

    Raises :class:`UserError` if none works.
    """
    problems: list[UserError] = []
    for backend in task.backends:
        problem = _problem(task, backend)
        if problem is None:
            return backend, [f"{error}; measured on {backend} instead" for error in problems]
        problems.append(problem)
    raise problems[-1]


def working_backends(task: Task) -> tuple[list[str], list[str]]:
    """The backends that work on this machine, the fastest first, and a note for each that does not.

    Raises :class:`UserError` if none works.
    """
    problems = {backend: _problem(task, backend) for backend in task.backends}
    working = [backend for backend, problem in problems.items() if problem is None]
    errors = [problem for problem in problems.values() if problem is not None]
    if not working:
        raise errors[-1]
    return working, [f"{error}; it is not measured" for error in errors]


def _problem(task: Task, backend: str) -> UserError | None:
    """Why a backend does not work on this machine; None if it works."""
    try:
        make_envs(task, 1, backend).close()
    except UserError as error:
        return error
    return None


def stock_environment(task: Task) -> "tuple[gymnasium.Env[Any, Any] | None, list[str]]":
    """One stock environment of a task, or None and a note that says why there is none."""
    try:
        playing = playing_of(task)
    except UserError as error:
        return None, [f"no plain loop: {error}"]
    try:
        return gymnasium.make(playing.gymnasium_id, **playing.gymnasium_options), []
    except (gymnasium.error.Error, ImportError) as error:
        reason = " ".join(str(error).split())
        return None, [f"no plain loop: {playing.gymnasium_id} cannot be made here ({reason})"]
