"""How fast is V trained from a bucket, against from the disk? Both in one run, in turns, with the same episodes.

python benchmarks/buckets.py [--frames 20000] [--steps 60] [--repeats 3] [--url s3://bucket/episodes]

Without --url, a server on this machine is the bucket (moto). Measured are training steps per second, and batches per
second of reading alone for an epoch, which is the bound that matters on a GPU: from the disk, and from the bucket when
the cache holds all frames, as from the second epoch on; and reading all frames once when nothing is in the cache. The
processor's seconds are compared, too, because other programs on the machine do not change them.
"""

import argparse
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from worldmodels.core.chunks import FRAME_CHUNK
from worldmodels.core.fit import Objective
from worldmodels.core.storage.mirror import Mirror
from worldmodels.core.storage.sync import sync
from worldmodels.data.episodes import Episode, EpisodeStore, Shard
from worldmodels.vision.base import make_vision
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.train import FrameStream, training_images


def make_episodes(folder: Path, frames: int) -> None:
    """Episodes of 1000 frames that look like those of a game: a slowly moving picture with some noise."""
    random, store = np.random.default_rng(1), EpisodeStore(folder / "episodes")
    for index in range(max(1, frames // 4000)):
        episodes = []
        for seed in range(4):
            picture = random.integers(0, 255, (64, 64, 3), np.uint8)
            moving = np.stack([np.roll(picture, step // 4, axis=1) for step in range(1000)])
            moving[:, 40:44] = random.integers(0, 255, (1000, 4, 64, 3), np.uint8)
            actions, rewards = np.zeros((999, 3), np.float32), np.zeros(999, np.float32)
            episodes.append(Episode(moving, actions, rewards, True, seed, "benchmark"))
        store.write(index, episodes)


class Clock:
    """Seconds by the clock on the wall and by that of the processor since it was made."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def rates(self, count: float) -> np.ndarray:
        """``count`` per second, by both."""
        return count / np.array([time.perf_counter() - self._wall, time.process_time() - self._processor])


def rates(shards: Sequence[Shard], steps: int) -> np.ndarray:
    """Training steps per second, and batches read per second in an epoch, each by both clocks: (2, 2)."""
    config = VisionConfig()
    stream = FrameStream(shards, config.batch, config.window, seed=1)
    clock, count = Clock(), stream.batches_per_epoch
    for _, frames in zip(range(count), stream.batches(0), strict=False):
        assert len(frames) == config.batch
    reading = clock.rates(count)
    vision = make_vision(config.model, config.latent_size)
    objectives: list[Objective] = vision.objectives(config, 1)
    optimizers = [torch.optim.Adam(objective.module.parameters(), lr=1e-4) for objective in objectives]
    clock = Clock()
    for step, frames in zip(range(steps), stream.batches(0), strict=False):
        images = training_images(frames, torch.device("cpu"))
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            optimizer.zero_grad()
            objective.loss(images, step)[0].backward()
            optimizer.step()
    return np.stack([clock.rates(steps), reading])


@contextmanager
def bucket(url: str | None) -> Iterator[str]:
    """The URL of an empty folder in a bucket: the given one, or one of a server that ends with the block."""
    if url is not None:
        yield url
        return
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    os.environ.update(variables, AWS_ENDPOINT_URL=endpoint)
    fsspec.filesystem("s3").mkdir("benchmark")
    yield "s3://benchmark/episodes"
    server.stop()


def shards_of(folder: Path) -> list[Shard]:
    """The shards of a folder or of a mirror's folder."""
    return EpisodeStore(folder / "episodes").shards()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--url")
    options = parser.parse_args()
    temporary = tempfile.TemporaryDirectory()
    with temporary as name, bucket(options.url) as url:
        folder, os.environ["WORLDMODELS_CACHE"] = Path(name) / "disk", str(Path(name) / "cache")
        make_episodes(folder, options.frames)
        sync(folder, url)
        found: dict[str, list[np.ndarray]] = {"disk": [], "bucket": []}
        first = []
        rates(shards_of(folder), 2)  # warms up
        for repeat in range(options.repeats):
            shutil.rmtree(Path(name) / "cache", ignore_errors=True)
            shards = shards_of(Mirror.reading(url).folder)
            clock = Clock()
            for shard in shards:
                for start in range(0, shard.num_frames, FRAME_CHUNK):
                    shard.frames(start, min(start + FRAME_CHUNK, shard.num_frames))
            first.append(clock.rates(sum(shard.num_frames for shard in shards) / VisionConfig().batch))
            both = {"disk": shards_of(folder), "bucket": shards}
            for which in sorted(both, reverse=repeat % 2 == 0):  # in turns
                found[which].append(rates(both[which], options.steps))
    medians = {which: np.median(values, axis=0) for which, values in found.items()}
    for which, (training, reading) in medians.items():
        print(f"{which}: {training[0]:.2f} training steps and {reading[0]:.1f} batches read per second")
    print(f"bucket with nothing in the cache: {np.median(first, axis=0)[0]:.1f} batches read per second")
    shares = medians["bucket"] / medians["disk"]
    for index, clock_name in enumerate(("the clock", "the processor's time")):
        text = f"{shares[0, index]:.0%} of the disk's training, {shares[1, index]:.0%} of its reading"
        print(f"from the second epoch on: {text}, by {clock_name}")


if __name__ == "__main__":
    main()
