"""Vision models on the same CarRacing frames: one table, and a picture of what each of them sees.

python benchmarks/vision_models.py [--models conv-vae patch-vae ...] [--epochs 4 | --seconds 600] [--out DIR]
python benchmarks/vision_models.py --agents [--preset quick] [--seed 1] [--out DIR]

Each model is trained on the same episodes, for the same passes over the frames (--epochs) or for about the same time
(--seconds, from which its epochs are computed once), with the stage's own code. The other figures are measured on
episodes that no model has seen. --agents also trains M and C with each of them, through the normal runs, which share
their recorded episodes, and scores the agents. Finished parts are kept as files in DIR: an interrupted comparison
continues, and one with other settings needs another DIR.

pixel error: squared error, summed over a frame (colours from 0 to 1), z at its mean. KL: nats of a frame.
sharpness: variance of the Laplacian of the decoded frames, as a share of that of the real ones (1: as sharp).
R2: how well a linear map of z predicts, on other episodes, where a car on the road is and where the road leads.
"""

import argparse
import csv
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from PIL import Image

import worldmodels
from worldmodels.analysis.linear import split_by_group
from worldmodels.analysis.probe import LEAST_EPISODES, scores
from worldmodels.core.device import choose_device
from worldmodels.core.errors import UserError
from worldmodels.core.files import load_tensors, read_json, save_tensors, write_json
from worldmodels.core.progress import Progress
from worldmodels.core.provenance import provenance
from worldmodels.core.seeds import episode_seeds
from worldmodels.run.config import Config
from worldmodels.run.stage import Stopwatch
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations
from worldmodels.vision.base import Vision, decode_frames, encode_frames, images_from_frames, make_vision
from worldmodels.vision.config import VisionConfig
from worldmodels.vision.train import train_vision

FAST = "worldmodels.tasks.car_racing:worldmodels/CarRacing-v3"
ZOOMED = 60
"""Steps after which the camera has zoomed in; earlier frames train V, but are not measured."""
AHEAD = 3, 6, 9
"""Pieces of the road ahead, of about 3.5 units each, whose place is probed; about ten are visible."""
ON_ROAD, ALONG = 8.0, 0.5
"""Frames are probed up to this distance of the car from the middle of the road, whose half is 6.7 wide, and from this
cosine of the angle between the two on: elsewhere, what lies ahead of the car is not the road ahead."""
TRIAL_STEPS = 20
"""Steps of the trial from which --seconds computes the epochs."""
BATCH = 64
"""Frames encoded at a time, as about twenty rollouts do it."""
SETTINGS = "episodes", "measured_episodes", "steps", "epochs", "seconds", "batch", "lr", "window", "seed"
"""Options that all models and all parts of a comparison must share."""
COLUMNS = {
    "epochs": "{:.1f}",
    "minutes": "{:.1f}",
    "pixel error": "{:.2f}",
    "KL": "{:.1f}",
    "sharpness": "{:.2f}",
    "R2 road": "{:.3f}",
    "R2 ahead": "{:.3f}",
    "frames/s": "{:,.0f}",
    "score": "{}",
}


@dataclass(frozen=True)
class Frames:
    """Episodes in memory, a shard for training V. images: (n, 64, 64, 3) uint8; lengths: actions of each, (E,)."""

    images: np.ndarray
    lengths: np.ndarray

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.images)

    @property
    def terminated(self) -> np.ndarray:
        """Whether the world ended each episode, (E,): what happened there is not kept."""
        return np.zeros(len(self.lengths), np.uint8)

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start`` to ``stop``."""
        return self.images[start:stop]


def recorded(path: Path, purpose: str, seed: int, episodes: int, steps: int) -> tuple[Frames, np.ndarray, np.ndarray]:
    """Frames of noisy drivers, the state that each shows (n, 6), and whether it is to be measured (n,) bool."""
    if not path.exists():
        task, env = get_task("car-racing"), gymnasium.make(FAST, max_episode_steps=steps)
        images, states, lengths, zoomed = [], [], [], []
        with Progress(episodes, purpose, "episodes") as bar:
            for number in episode_seeds(purpose, seed, episodes):
                driver, step, ended = task.exploration([number]), 0, False
                seen, _ = env.reset(seed=number)
                while True:
                    images.append(task.frames(seen[None])[0])
                    states.append(state_of(env.unwrapped))
                    zoomed.append(step >= ZOOMED)
                    if ended:
                        break
                    action = driver.act(Observations(task, seen[None]), np.arange(1))[0]
                    seen, _, terminated, truncated, _ = env.step(action)
                    step, ended = step + 1, terminated or truncated
                lengths.append(step)
                bar.advance()
        tensors = {"images": np.stack(images), "states": np.stack(states), "lengths": np.array(lengths)}
        tensors["zoomed"] = np.array(zoomed)
        save_tensors(path, {name: torch.from_numpy(value) for name, value in tensors.items()}, {})
    found = {name: value.numpy() for name, value in load_tensors(path)[0].items()}
    return Frames(found["images"], found["lengths"]), found["states"], found["zoomed"]


def state_of(car_racing: Any) -> np.ndarray:
    """Offset from the road's middle, sine and cosine of the angle to it, and how far aside it lies ahead, (6,)."""
    track = np.array(car_racing.track)  # (pieces, 4): angle around the track, heading, x, y
    position, angle = np.array(car_racing.car.hull.position), car_racing.car.hull.angle
    nearest = int(np.square(track[:, 2:] - position).sum(axis=1).argmin())
    heading = track[nearest, 1]
    right = np.array([np.cos(angle), np.sin(angle)])
    road_right = np.array([np.cos(heading), np.sin(heading)])
    ahead = [(track[(nearest + pieces) % len(track), 2:] - position) @ right for pieces in AHEAD]
    offset = (position - track[nearest, 2:]) @ road_right
    return np.array([offset, np.sin(angle - heading), np.cos(angle - heading), *ahead])


def trained(folder: Path, config: VisionConfig, shard: Frames, seconds: float, seed: int) -> tuple[Vision, dict]:
    """A model trained on the frames; with ``seconds``, for about as long. Its figures: epochs and minutes."""
    device, file = choose_device("auto"), folder / "trained.json"
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "epochs.json"
    if not plan.exists():
        epochs = seconds / seconds_per_epoch(folder / "trial", config, shard, seed) if seconds else config.epochs
        write_json(plan, {"epochs": epochs})
    config = replace(config, epochs=read_json(plan)["epochs"])
    weights = folder / "vision.safetensors"
    if not file.exists():
        watch = Stopwatch(folder / "elapsed.json")
        try:
            vision, _ = train_vision([shard], config, seed, device, folder)
        finally:
            watch.stop()
        save_tensors(weights, vision.state_dict(), {})
        write_json(file, {"epochs": config.epochs, "minutes": watch.seconds / 60})
    vision = make_vision(config.model, config.latent_size)
    vision.load_state_dict(load_tensors(weights)[0])
    return vision.to(device).eval().to(memory_format=torch.channels_last), read_json(file)


def seconds_per_epoch(folder: Path, config: VisionConfig, shard: Frames, seed: int) -> float:
    """How long a pass over the frames takes, at the speed that a short training reports."""
    shutil.rmtree(folder, ignore_errors=True)  # a trial that was interrupted begins again
    folder.mkdir()
    short = replace(config, epochs=TRIAL_STEPS * config.batch / shard.num_frames)
    train_vision([shard], short, seed, choose_device("auto"), folder)
    with open(folder / "metrics.csv", newline="") as file:
        return shard.num_frames / float(list(csv.DictReader(file))[-1]["vision_per_s"])


def quality(vision: Vision, frames: np.ndarray, states: np.ndarray, episodes: np.ndarray) -> dict[str, float]:
    """Pixel error, KL, sharpness, and what linear maps of mu tell of the state, on frames (n, 64, 64, 3)."""
    totals, latents, sharp = dict[str, float](), [], np.zeros(2)
    device = next(vision.parameters()).device
    with torch.no_grad():
        for start in range(0, len(frames), BATCH):
            batch = frames[start : start + BATCH]
            parts = vision.held_out_loss(images_from_frames(torch.from_numpy(batch).to(device)), VisionConfig())
            for name, value in parts.items():
                totals[name] = totals.get(name, 0.0) + value.item() * len(batch) / len(frames)
            mu, _ = encode_frames(vision, batch)
            latents.append(mu.cpu().numpy())
            sharp += [laplacian(decode_frames(vision, mu)).sum(), laplacian(batch).sum()]
    seen = (np.abs(states[:, 0]) < ON_ROAD) & (states[:, 2] > ALONG)
    state = {"road": states[seen, :2], "ahead": states[seen, 3:]}
    found = scores(np.concatenate(latents)[seen], state, split_by_group(episodes[seen]))
    probes = {f"R2 {name}": float(np.nanmean(found[f"{name}/R2"])) for name in state}
    figures = {"pixel error": totals["reconstruction"], "KL": totals["kl"], "sharpness": sharp[0] / sharp[1]}
    return figures | probes


def laplacian(frames: np.ndarray) -> np.ndarray:
    """The variance of the Laplacian of frames (n, 64, 64, 3) uint8, (n,), over inner pixels and colours."""
    x = frames.astype(np.float32) / 255
    second = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:] - 4 * x[:, 1:-1, 1:-1]
    return np.asarray(second.var(axis=(1, 2, 3)))


def encoding_rates(visions: dict[str, Vision], frames: np.ndarray, repeats: int) -> dict[str, float]:
    """Frames per second that each model encodes, measured in turns: the median."""
    seconds: dict[str, list[float]] = {name: [] for name in visions}
    batch = np.ascontiguousarray(frames[:BATCH])
    for turn in range(repeats + 1):
        for name, vision in visions.items():
            began = time.perf_counter()
            for _ in range(4):
                encode_frames(vision, batch)[0].cpu()
            if turn:  # the first warms up
                seconds[name].append((time.perf_counter() - began) / (4 * len(batch)))
    return {name: 1 / statistics.median(values) for name, values in seconds.items()}


def picture(visions: dict[str, Vision], frames: np.ndarray, out: Path, count: int = 8) -> None:
    """Save frames in the first row, and below them what each model decodes from their z."""
    chosen = frames[np.linspace(0, len(frames) - 1, count).astype(int)]
    rows = [chosen, *(decode_frames(vision, encode_frames(vision, chosen)[0]) for vision in visions.values())]
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    size = 3 * sheet.shape[1], 3 * sheet.shape[0]
    Image.fromarray(sheet).resize(size, Image.Resampling.NEAREST).save(out / "pictures.png")


def agent_scores(models: Sequence[str], out: Path, config: Config) -> dict[str, str]:
    """Train M and C with each model in a run of its own; the score of each agent with its 95% interval."""
    found, first = dict[str, str](), None
    for model in models:
        run = out / f"{config.preset}-{model}"
        scored = worldmodels.train(config.with_settings(**{"vision.model": model}), run, from_run=first).evaluation()
        first = first or run
        interval = f" ({scored['ci95'][0]:.0f} to {scored['ci95'][1]:.0f})" if scored["ci95"] else ""
        found[model] = f"{scored['mean']:.0f}{interval}"
    return found


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The figures of each model as a Markdown table; columns that no model has are left out."""
    columns = [name for name in COLUMNS if any(name in row for row in rows.values())]
    lines = [["V", *columns], ["---", *("---:" for _ in columns)]]
    for model, row in rows.items():
        lines.append([model, *(COLUMNS[name].format(row[name]) if name in row else "" for name in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def compare(options: argparse.Namespace) -> None:
    """Train, measure, and write the table, the figures and the picture."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    wanted = {name: getattr(options, name) for name in SETTINGS}
    if (out / "settings.json").exists() and read_json(out / "settings.json") != wanted:
        raise UserError(f"{out} holds a comparison with other settings; choose another --out")
    write_json(out / "settings.json", wanted)
    seed, steps = options.seed, options.steps
    shard, _, _ = recorded(out / "training.safetensors", "collect", seed, options.episodes, steps)
    measured, states, zoomed = recorded(out / "measured.safetensors", "probe", seed, options.measured_episodes, steps)
    episodes = np.repeat(np.arange(len(measured.lengths)), measured.lengths + 1)[zoomed]
    frames, states = measured.images[zoomed], states[zoomed]
    rows, visions = dict[str, dict[str, Any]](), dict[str, Vision]()
    for model in options.models:
        config = VisionConfig(model, epochs=options.epochs, batch=options.batch, lr=options.lr, window=options.window)
        visions[model], rows[model] = trained(out / model, config, shard, options.seconds, seed)
        file = out / model / "quality.json"
        if not file.exists():
            write_json(file, quality(visions[model], frames, states, episodes))
        rows[model] |= read_json(file)
    for model, rate in encoding_rates(visions, frames, options.repeats).items():
        rows[model]["frames/s"] = rate
    picture(visions, frames, out)
    if options.agents:
        changes = {name: json.loads(value) for name, value in (change.split("=") for change in options.agent_setting)}
        config = worldmodels.preset(options.preset, "car-racing", seed=seed, **changes)
        for model, score in agent_scores(options.models, out / "agents", config).items():
            rows[model]["score"] = score
    write_json(
        out / "table.json", {"rows": rows, "settings": wanted, "made_with": provenance(choose_device("auto"), [])}
    )
    (out / "table.md").write_text(table(rows) + "\n")
    print(table(rows))
    print(
        f"{len(frames):,} frames of {len(measured.lengths)} episodes measured; real and decoded: {out / 'pictures.png'}"
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["conv-vae", "patch-vae", "vae-gan-small"])
    parser.add_argument("--episodes", type=int, default=40, help="to train on")
    parser.add_argument("--measured-episodes", type=int, default=40, help="to measure on")
    parser.add_argument("--steps", type=int, default=500, help="longest episode")
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=0.0, help="of training, instead of --epochs")
    parser.add_argument("--batch", type=int, default=VisionConfig().batch)
    parser.add_argument("--lr", type=float, default=VisionConfig().lr)
    parser.add_argument("--window", type=int, default=VisionConfig().window)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="of measuring the speed")
    parser.add_argument("--agents", action="store_true", help="train and score an agent with each model, too")
    parser.add_argument("--preset", default="quick", help="of the agents")
    parser.add_argument("--agent-setting", action="append", default=[], help="of the agents, such as memory.steps=100")
    parser.add_argument("--out", type=Path, default=Path("vision-models"))
    options = parser.parse_args()
    if options.measured_episodes < LEAST_EPISODES:
        parser.error(f"expected at least {LEAST_EPISODES} episodes to measure on, got {options.measured_episodes}")
    compare(options)


if __name__ == "__main__":
    main()
