"""Where tensors live and in which precision V runs."""

import contextlib

import numpy as np
import torch

from worldmodels.errors import UserError
from worldmodels.workers.cores import usable_cores


def choose_device(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu`` or ``cuda``."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU; use --device cpu, or install a CUDA build of torch")
    torch.set_num_threads(usable_cores())
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones here: on recent GPUs, and CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
