"""How long the import of recordings takes: files are generated, imported into a run, and the rate is extrapolated.

    python benchmarks/import_episodes.py --episodes 24 --steps 833 --size 96
    python benchmarks/import_episodes.py --episodes 600 --steps 833 --size 64 --executor workers

Prints the seconds, the frames per second, and the time that 600 episodes of 500,000 frames would take at that rate.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from worldmodels.data.exchange.config import RecordingConfig
from worldmodels.run.importing import import_episodes
from worldmodels.run.presets import preset

_TARGET = 500_000


def pictures(random: np.random.Generator, steps: int, size: int) -> np.ndarray:
    """A road that winds over grass, with a car and an indicator bar: about as compressible as CarRacing."""
    rows, columns = np.mgrid[0:size, 0:size]
    centre = size / 2 + np.cumsum(random.normal(0, 0.7, steps))
    shown = np.empty((steps, size, size, 3), np.uint8)
    for step, picture in enumerate(shown):
        picture[:] = (102, 204, 102)
        squares = ((rows + 2 * step) // 8 + columns // 8) % 2 == 0
        picture[squares] = (102, 229, 102)
        picture[np.abs(columns - centre[step] - 0.3 * (rows - size / 2)) < size / 9] = (105, 105, 105)
        picture[size // 2 : size // 2 + 5, size // 2 - 2 : size // 2 + 2] = (204, 0, 0)
        picture[-size // 8 :] = 0
    return shown


def generate(folder: Path, episodes: int, steps: int, size: int, compressed: bool) -> None:
    """Write recordings with all four arrays."""
    folder.mkdir()
    save = np.savez_compressed if compressed else np.savez
    for index in range(episodes):
        random = np.random.default_rng(index)
        action = random.random((steps, 3))
        save(folder / f"{index:05d}.npz", obs=pictures(random, steps + 1, size), action=action,
             reward=random.normal(size=steps), done=np.arange(1, steps + 1) == steps)  # fmt: skip


def main() -> None:
    """Generate, import and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--steps", type=int, default=833)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--executor", default="local", choices=("local", "workers"))
    parser.add_argument("--uncompressed", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, run = Path(place) / "files", Path(place) / "run"
        generate(folder, options.episodes, options.steps, options.size, not options.uncompressed)
        config = preset("quick", "car-racing")
        before, busy = time.monotonic(), time.process_time()
        result = import_episodes(config, run, folder, RecordingConfig(), options.executor)
        seconds, busy = time.monotonic() - before, time.process_time() - busy
        stored = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    frames = result["metrics"]["steps"] + result["metrics"]["episodes"]
    print(f"{frames:,.0f} frames of {options.size}x{options.size}, {stored / frames:,.0f} bytes per frame stored")
    print(f"{seconds:.1f} s: {frames / seconds:,.0f} frames/s; {_TARGET:,} frames: {_TARGET / frames * seconds:.0f} s")
    print(f"{busy:.1f} s of this process's own time: {frames / busy:,.0f} frames/s of a core that nothing else uses")


if __name__ == "__main__":
    sys.exit(main())
