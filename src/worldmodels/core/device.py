"""The device, precision and thread count with which networks run, and seeded random numbers on the CPU."""

import contextlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch

from worldmodels.core.errors import UserError

_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Names of bfloat16 instructions in /proc/cpuinfo: AMX, AVX512-BF16 and Arm's."""
_NUMERIC = _BFLOAT16 | {"fma", "avx2", "avx512f", "avx512_fp16", "amx_tile", "asimd", "sve"}
"""Names of instructions for which PyTorch's libraries have code of their own, with other roundings."""


def choose_device(name: str) -> torch.device:
    """The device called ``name``: ``cpu``, ``cuda``, or ``auto``, which is CUDA if PyTorch sees a GPU and else the CPU.

    Raises :class:`UserError` for any other name, and for ``cuda`` without a GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU; use --device cpu, or install a CUDA build of torch")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Limit PyTorch to ``count`` threads inside the block: for a few rows, more threads mostly wait for each other."""
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
    """Whether networks run in bfloat16: on GPUs and CPUs whose bfloat16 products are faster than those in float32.

    Intel's processors with AVX512-BF16 but without AMX, which virtual machines often hide, have one unit for bfloat16
    products where they have two for float32 ones: there everything in float32 is 1.3 to 1.9 times as fast.
    """
    if device.type == "cuda":
        # Older GPUs emulate bfloat16, which is slower than float32.
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = _processor_flags()
    return not _BFLOAT16.isdisjoint(flags) and not (flags >= {"GenuineIntel"} and "amx_bf16" not in flags)


def processor_features() -> tuple[str, ...]:
    """Instructions of the CPU that change the numbers that networks compute, sorted: "AVX512", "amx_bf16" and so on.

    The first is the set of vector instructions that PyTorch uses.
    """
    return (torch.backends.cpu.get_cpu_capability(), *sorted(_NUMERIC & _processor_flags()))


@cache
def _processor_flags() -> frozenset[str]:
    """The words of /proc/cpuinfo; none where it does not exist."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(errors="replace").split())
    except OSError:
        return frozenset()


def precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context manager: autocast to bfloat16 if :func:`fast_bfloat16` holds for the device, else no change."""
    if fast_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def noise(shape: tuple[int, ...], *key: int) -> torch.Tensor:
    """A float32 tensor of standard normal numbers that depend on ``key`` alone, drawn on the CPU."""
    return torch.randn(shape, generator=generator(*key))


def generator(*key: int) -> torch.Generator:
    """A random generator on the CPU whose seed depends on ``key`` alone."""
    state = np.random.SeedSequence(list(key)).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]))
