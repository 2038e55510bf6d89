"""How fast is V trained from a bucket, against from the disk? Both in one run, in turns, with the same episodes.

python benchmarks/buckets.py [--frames 20000] [--steps 60] [--repeats 3] [--url s3://bucket/episodes]

Without --url, a server on this machine is the bucket (moto). Three numbers per repeat: training steps per second from
the disk, from the bucket in the first epoch, when nothing is in the cache, and from the bucket when the cache holds all
frames, as from the second epoch on. And the same for reading alone, which is the bound that matters on a GPU.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

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


def rates(shards: Sequence[Shard], steps: int) -> tuple[float, float]:
    """Training steps and batches read per second, from the first step of an epoch on."""
    config = VisionConfig()
    stream = FrameStream(shards, config.batch, config.window, seed=1)
    began = time.perf_counter()
    for _, frames in zip(range(steps), stream.batches(0), strict=False):
        assert len(frames) == config.batch
    reading = steps / (time.perf_counter() - began)
    vision = make_vision(config.model, config.latent_size)
    objectives: list[Objective] = vision.objectives(config, 1)
    optimizers = [torch.optim.Adam(objective.module.parameters(), lr=1e-4) for objective in objectives]
    began = time.perf_counter()
    for step, frames in zip(range(steps), stream.batches(0), strict=False):
        images = training_images(frames, torch.device("cpu"))
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            optimizer.zero_grad()
            objective.loss(images, step)[0].backward()
            optimizer.step()
    return steps / (time.perf_counter() - began), reading


@contextmanager
def bucket(url: str | None) -> Iterator[str]:
    """The URL of an empty folder in a bucket: the given one, or one of a server that ends with the block."""
    if url is not None:
        yield url
        return
    import fsspec
    from moto.server import ThreadedMotoServer

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
        found: dict[str, list[tuple[float, float]]] = {"disk": [], "bucket, first time": [], "bucket, in the cache": []}
        for _ in range(options.repeats):
            shutil.rmtree(Path(name) / "cache", ignore_errors=True)
            found["disk"].append(rates(shards_of(folder), options.steps))
            mirror = Mirror.reading(url)
            for shard in (shards := shards_of(mirror.folder)):
                assert not any((mirror.folder / "episodes" / shard.path.name / "frames").glob("c/**/*"))
            began = time.perf_counter()
            for shard in shards:
                for start in range(0, shard.num_frames, 64):
                    shard.frames(start, min(start + 64, shard.num_frames))
            batches = sum(shard.num_frames for shard in shards) / VisionConfig().batch
            found["bucket, first time"].append((float("nan"), batches / (time.perf_counter() - began)))
            found["bucket, in the cache"].append(rates(shards, options.steps))
    medians = {
        name: [statistics.median(values) for values in zip(*pairs, strict=True)] for name, pairs in found.items()
    }
    for name, (training, reading) in medians.items():
        train = "" if training != training else f"{training:.2f} training steps per second, "
        print(f"{name}: {train}{reading:.1f} batches read per second")
    disk, cached = medians["disk"], medians["bucket, in the cache"]
    shares = f"{cached[0] / disk[0]:.0%} of the disk's training, {cached[1] / disk[1]:.0%} of its reading"
    print(f"from the second epoch on: {shares}")


if __name__ == "__main__":
    main()
