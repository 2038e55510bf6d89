"""What works on this machine, what does not, and what to install: the rows behind ``worldmodels doctor``.

Every check really does the thing it reports (steps a world, writes a film, loads an agent). A check that
fails is a row that says what to do; it is never a traceback. Worlds and windows are tried in a process of
their own, so that a library that crashes or hangs costs a row and not the report.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module, metadata, resources
from pathlib import Path

_REINSTALL = 'pip install "worldmodels[all]"'
_TRIAL_SECONDS = 120
_ROOM_GB = 5.0
"""Disk that a standard run with its episodes fits into."""
_MEMORY_GB = 4.0
"""Memory that training fits into with everything around it."""


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    what: str
    """What was looked at."""
    works: bool
    """Whether it works."""
    found: str
    """What was found, or what went wrong, in one line."""
    fix: str = ""
    """What to do when it does not work."""
    needed: bool = False
    """Whether training cannot do without it."""


@dataclass(frozen=True)
class _Library:
    module: str
    distribution: str
    install: str = _REINSTALL
    needed: bool = True


_LIBRARIES = (
    _Library("torch", "torch"),
    _Library("gymnasium", "gymnasium"),
    _Library("envpool", "envpool", 'pip install "worldmodels[fast]"'),
    _Library("Box2D", "box2d", 'pip install "worldmodels[car]" (Python 3.11 to 3.13)'),
    _Library("pygame", "pygame-ce", 'pip install "worldmodels[car,play]"'),
    _Library("numpy", "numpy"),
    _Library("zarr", "zarr"),
    _Library("safetensors", "safetensors"),
    _Library("cma", "cma"),
    _Library("imageio", "imageio", needed=False),
    _Library("imageio_ffmpeg", "imageio-ffmpeg", needed=False),
    _Library("tensorboard", "tensorboard"),
    _Library("matplotlib", "matplotlib"),
)

_BACKEND_FIX = {
    "envpool": 'pip install "worldmodels[fast]", or choose the backend "gymnasium" (slower)',
    "gymnasium": 'pip install "worldmodels[car]" (needs Python 3.11 to 3.13)',
}

_TRY_WORLD = """
import sys, numpy
from worldmodels.tasks import get_task
env = get_task(sys.argv[1]).make(1, sys.argv[2])
first = env.reset(seed=[1])[0]
after = env.step(numpy.zeros(env.action_space.shape, env.action_space.dtype))[0]
env.close()
assert first.shape == after.shape and first.any(), "the world drew nothing"
print("drew", "x".join(map(str, first.shape[1:])), "and took a step")
"""

_TRY_WINDOW = """
import pygame
pygame.display.init()
print("display driver", pygame.display.get_driver())
pygame.display.quit()
"""


def report() -> list[Row]:
    """All rows, in the order in which they are shown. Takes some ten seconds; raises nothing."""
    rows: list[Row] = []
    for name, check in _checks():
        rows.extend(_guarded(name, check))
    return rows


def main() -> int:
    """Print the report as a table; 0 if everything that training needs works, else 1."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = report()
    table = Table("", "what", "found", "what to do", title="worldmodels doctor", title_justify="left")
    for row in rows:
        mark = Text("ok", "green") if row.works else Text("no", "bold red" if row.needed else "yellow")
        table.add_row(mark, Text(row.what), Text(row.found), Text("" if row.works else row.fix))
    broken = [row.what for row in rows if row.needed and not row.works]
    console = Console()
    console.print(table)
    if broken:
        console.print(Text(f"Training will not work before this is repaired: {', '.join(broken)}.", "bold red"))
    else:
        console.print("Everything that training needs works.")
    return 1 if broken else 0


def _checks() -> Iterable[tuple[str, Callable[[], list[Row]]]]:
    yield "python", _python
    for library in _LIBRARIES:
        yield library.distribution, partial(_library, library)
    yield "cores", _cores
    yield "memory", _memory
    yield "disk", _disk
    yield "processor", _processor
    yield "gpu", _gpu
    yield "worlds", _worlds
    yield "mp4 films", partial(_film, "mp4", "pip install imageio-ffmpeg")
    yield "gif films", partial(_film, "gif", "pip install imageio pillow")
    yield "zarr with zstd", _zarr
    yield "window", _window
    yield "agents", _agents


def _guarded(name: str, check: Callable[[], list[Row]]) -> list[Row]:
    try:
        return check()
    except Exception as error:  # a report about a broken machine must survive every breakage
        return [Row(name, False, _one_line(error), _REINSTALL, needed=True)]


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


def _python() -> list[Row]:
    version = platform.python_version()
    new_enough = sys.version_info >= (3, 11)
    found = f"{version} on {platform.system()} {platform.machine()}"
    return [Row("python", new_enough, found, "install Python 3.11 or newer", needed=True)]


def _library(library: _Library) -> list[Row]:
    try:
        import_module(library.module)
    except Exception as error:  # a broken binary raises much more than ImportError
        return [Row(library.distribution, False, _one_line(error), library.install, library.needed)]
    try:
        version = metadata.version(library.distribution)
    except metadata.PackageNotFoundError:
        version = "unknown version"
    return [Row(library.distribution, True, version, library.install, library.needed)]


def _cores() -> list[Row]:
    from worldmodels.core.cores import usable_cores

    return [Row("cores", True, f"{usable_cores()} usable of {os.cpu_count()}")]


def _memory() -> list[Row]:
    gigabytes = _memory_bytes() / 1e9
    if not gigabytes:
        return [Row("memory", True, "unknown on this system")]
    enough = gigabytes >= _MEMORY_GB
    return [
        Row(
            "memory",
            enough,
            f"{gigabytes:.1f} GB",
            f"training wants {_MEMORY_GB:.0f} GB; close other programs",
        )
    ]


def _memory_bytes() -> int:
    """Memory that this process may use, containers counted; 0 where the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _disk() -> list[Row]:
    gigabytes = shutil.disk_usage(Path.cwd()).free / 1e9
    fix = f"a run needs about {_ROOM_GB:.0f} GB; free some, or put the run elsewhere with --run DIR"
    return [Row("disk", gigabytes >= _ROOM_GB, f"{gigabytes:.1f} GB free here", fix)]


def _processor() -> list[Row]:
    import torch

    vectors = torch.backends.cpu.get_cpu_capability()
    fast = _has_bf16_products()
    return [Row("processor", True, f"{vectors}, bfloat16 products {'in hardware' if fast else 'not in hardware'}")]


def _has_bf16_products() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AMX or AVX512-BF16, Arm's bf16)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"amx_bf16", "avx512_bf16", "bf16"})


def _gpu() -> list[Row]:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        bf16 = ", bfloat16" if torch.cuda.is_bf16_supported() else ""
        return [
            Row(
                "gpu",
                True,
                f"{torch.cuda.device_count()} x {card.name}, {card.total_memory / 1e9:.0f} GB{bf16}",
            )
        ]
    if shutil.which("nvidia-smi"):
        fix = "install a CUDA build of torch that fits the driver"
        return [Row("gpu", False, f"there is a driver, but torch {torch.__version__} cannot use it", fix)]
    return [Row("gpu", True, "none; the processor is used")]


def _worlds() -> list[Row]:
    from worldmodels.tasks import get_task, task_names

    rows = []
    for name in task_names():
        for backend in get_task(name).backends:
            works, found = _try(_TRY_WORLD, name, backend)
            fix = _BACKEND_FIX.get(backend, _REINSTALL)
            rows.append(Row(f"{name} on {backend}", works, found, fix, needed=True))
    return rows


def _try(program: str, *arguments: str) -> tuple[bool, str]:
    """Run a Python program in its own process: whether it ended well, and the last line that it wrote."""
    command = [sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TRIAL_SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"hung: no end after {_TRIAL_SECONDS} s"
    except OSError as error:
        return False, _one_line(error)
    written = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode < 0:
        return False, f"crashed with signal {-done.returncode}"
    return done.returncode == 0, written[-1] if written else f"ended with code {done.returncode}"


def _film(kind: str, install: str) -> list[Row]:
    """Write eight frames as a film and count what comes back."""
    try:
        import imageio.v2 as imageio
        import numpy as np

        frames = [np.full((64, 64, 3), shade, np.uint8) for shade in range(0, 240, 30)]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, f"film.{kind}")
            imageio.mimwrite(path, frames)  # type: ignore[arg-type]
            count = len(imageio.mimread(path))
    except Exception as error:  # codecs fail in every way there is
        return [Row(f"{kind} films", False, _one_line(error), install)]
    return [Row(f"{kind} films", count == len(frames), f"wrote {len(frames)} frames, read {count}", install)]


def _zarr() -> list[Row]:
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
    found = "what was written came back" if same else "what came back is not what was written"
    return [Row("zarr with zstd", same, found, "pip install --force-reinstall zarr numcodecs", needed=True)]


def _window() -> list[Row]:
    fix = "only `play` needs a window: run it on a desktop, through ssh -X, or under xvfb-run"
    on_x = sys.platform not in ("darwin", "win32")
    if on_x and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return [Row("window", False, "no display: DISPLAY and WAYLAND_DISPLAY are not set", fix)]
    works, found = _try(_TRY_WINDOW)
    return [Row("window", works, found, f'pip install "worldmodels[play]"; {fix}')]


def _agents() -> list[Row]:
    from worldmodels.agent import load_agent

    folders = (folder for folder in resources.files("worldmodels.agents").iterdir() if folder.is_dir())
    names = sorted(folder.name for folder in folders if not folder.name.startswith(("_", ".")))
    if not names:
        return [Row("shipped agents", False, "none in this installation", f"reinstall: {_REINSTALL}, or train one")]
    rows = []
    for name in names:
        try:
            load_agent(name)
        except Exception as error:  # a damaged file is a row, whatever the reader made of it
            reinstall = "pip install --force-reinstall --no-deps worldmodels"
            rows.append(Row(f"agent {name}", False, _one_line(error), reinstall))
        else:
            rows.append(Row(f"agent {name}", True, "loads"))
    return rows
