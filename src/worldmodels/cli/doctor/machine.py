"""Checks of this machine: cores, memory, disk, libraries, videos, windows and the shipped agents."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from worldmodels.cli.doctor.rows import REINSTALL, Row, library
from worldmodels.cli.doctor.trials import one_line, tried
from worldmodels.cli.doctor.worlds import install

_ROOM_GB = 5.0
"""Disk space that is enough for a standard run with its episodes."""
_MEMORY_GB = 4.0
"""Memory that is enough for training, with the operating system and other programs."""
_NEEDED = ("torch", "gymnasium", "numpy", "zarr", "safetensors", "cma", "tensorboard", "matplotlib")
"""Libraries without which nothing can be trained."""
_FILMS = {"imageio": "imageio", "imageio_ffmpeg": "imageio-ffmpeg"}
"""Modules that only videos need, and the packages that contain them."""

_TRY_WINDOW = """
import pygame
pygame.display.init()
print("display driver", pygame.display.get_driver())
pygame.display.quit()
"""


def python() -> Iterator[Row]:
    """The version of Python, and the operating system."""
    new_enough = sys.version_info >= (3, 11)
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Row("python", new_enough, found, "install Python 3.11 or newer", needed=True)


def cores() -> Iterator[Row]:
    """The CPU cores that this process may use."""
    from worldmodels.core.cores import usable_cores

    yield Row("cores", True, f"{usable_cores()} usable of {os.cpu_count()}")


def memory() -> Iterator[Row]:
    """The memory that this process may use."""
    gigabytes = _memory_bytes() / 1e9
    found = f"{gigabytes:.1f} GB" if gigabytes else "unknown on this system"
    fix = f"training needs {_MEMORY_GB:.0f} GB; close other programs"
    yield Row("memory", not gigabytes or gigabytes >= _MEMORY_GB, found, fix)


def _memory_bytes() -> int:
    """Memory that this process may use, in bytes, limited by its container; 0 if the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def disk() -> Iterator[Row]:
    """Free space on the disk of the current directory."""
    gigabytes = shutil.disk_usage(Path.cwd()).free / 1e9
    fix = f"a run needs about {_ROOM_GB:.0f} GB; free some, or put the run elsewhere with --run DIR"
    yield Row("disk", gigabytes >= _ROOM_GB, f"{gigabytes:.1f} GB free here", fix)


def libraries() -> Iterator[Row]:
    """The libraries without which nothing can be trained, and those that videos need."""
    for module in _NEEDED:
        yield library(module, REINSTALL, needed=True)
    for module, distribution in _FILMS.items():
        yield library(module, f"pip install {distribution}")


def processor() -> Iterator[Row]:
    """The vector instructions of the CPU, and in which precision networks run on it."""
    import torch

    from worldmodels.core.device import fast_bfloat16

    vectors, fast = torch.backends.cpu.get_cpu_capability(), fast_bfloat16(torch.device("cpu"))
    yield Row("processor", True, f"{vectors}, networks run in {'bfloat16' if fast else 'float32'}")


def gpu() -> Iterator[Row]:
    """The first GPU, or whether there is one that PyTorch cannot use."""
    import torch

    from worldmodels.core.device import fast_bfloat16

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        bf16 = ", bfloat16" if fast_bfloat16(torch.device("cuda")) else ""
        found = f"{torch.cuda.device_count()} x {card.name}, {card.total_memory / 1e9:.0f} GB{bf16}"
        yield Row("gpu", True, found)
    elif shutil.which("nvidia-smi"):
        fix = "install a CUDA build of torch that fits the driver"
        yield Row("gpu", False, f"there is a driver, but torch {torch.__version__} cannot use it", fix)
    else:
        yield Row("gpu", True, "none; the processor is used")


def storage() -> Iterator[Row]:
    """Write a compressed array and read it back."""
    import numpy as np
    import zarr
    from zarr.codecs import ZstdCodec

    frames = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(1, 64, 64, 3)
    with tempfile.TemporaryDirectory() as directory:
        array = zarr.create_array(
            Path(directory, "frames"), shape=frames.shape, dtype=frames.dtype, compressors=ZstdCodec()
        )
        array[:] = frames
        same = np.array_equal(np.asarray(array[:]), frames)
    found = "wrote an array and read it back" if same else "read back another array than was written"
    yield Row("zarr with zstd", same, found, "pip install --force-reinstall zarr numcodecs", needed=True)


def film(kind: str, install: str) -> Iterator[Row]:
    """Write a video of eight frames, read it back and count the frames."""
    try:
        import imageio.v2 as imageio
        import numpy as np

        frames = [np.full((64, 64, 3), shade, np.uint8) for shade in range(0, 240, 30)]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"film.{kind}")
            imageio.mimwrite(path, frames)  # type: ignore[arg-type]
            count = len(imageio.mimread(path))
    except Exception as error:  # codecs raise errors of many kinds
        yield Row(f"{kind} videos", False, one_line(error), install)
    else:
        yield Row(f"{kind} videos", count == len(frames), f"wrote {len(frames)} frames, read {count}", install)


def window() -> Iterator[Row]:
    """Open a window, if there is a display."""
    fix = "only `play` needs a window: run it on a desktop, through ssh -X, or under xvfb-run"
    on_x = sys.platform not in ("darwin", "win32")
    if on_x and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        yield Row("window", False, "no display: DISPLAY and WAYLAND_DISPLAY are not set", fix)
    else:
        yield Row("window", *tried(_TRY_WINDOW), f"{install('play')}; {fix}")


def agents() -> Iterator[Row]:
    """Load each agent that ships with the package."""
    from worldmodels.agent import load_agent

    folders = (folder for folder in (resources.files("worldmodels") / "agents").iterdir() if folder.is_dir())
    names = sorted(folder.name for folder in folders if not folder.name.startswith(("_", ".")))
    if not names:
        yield Row("shipped agents", False, "none in this installation", f"reinstall: {REINSTALL}, or train one")
    for name in names:
        try:
            load_agent(name)
        except Exception as error:  # a damaged file gives a row, whatever error it causes
            reinstall = "pip install --force-reinstall --no-deps worldmodels"
            yield Row(f"agent {name}", False, one_line(error), reinstall)
        else:
            yield Row(f"agent {name}", True, "loads")
