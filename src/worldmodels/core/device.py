"""Where tensors live, in which precision networks run, and how many threads work on them."""

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from worldmodels.core.errors import UserError


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu`` or ``cuda``."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU; use --device cpu, or install a CUDA build of torch")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Inside, PyTorch works with ``count`` threads: a few rows gain nothing from more, which wait for each other."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones here: on recent GPUs, and CPUs that have instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return _processor_multiplies_bfloat16()


@cache
def _processor_multiplies_bfloat16() -> bool:
    """Whether the processor has AMX, AVX512-BF16 or Arm's bf16, as far as the system tells (Linux)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    except OSError:
        return False
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})


def precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Autocast to bfloat16 where that is faster, else nothing."""
    if fast_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def noise(shape: tuple[int, ...], *key: int) -> torch.Tensor:
    """Standard normal float32 numbers that depend on ``key`` alone, drawn on the CPU."""
    return torch.randn(shape, generator=generator(*key))


def generator(*key: int) -> torch.Generator:
    """A CPU random stream that depends on ``key`` alone."""
    state = np.random.SeedSequence(list(key)).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]))
