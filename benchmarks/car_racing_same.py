"""Is the faster CarRacing the same as Gymnasium's? Its states, rewards, pictures, V's latents, and an agent's scores.

python benchmarks/car_racing_same.py pictures [--seeds 200] [--steps 100] [--out DIR]
python benchmarks/car_racing_same.py scores [--episodes 300] [--seed 17] [--out DIR]
python benchmarks/car_racing_same.py speed [--seeds 20] [--steps 100]

pictures: the same noisy drivers in both, step by step; the worst picture is saved beside Gymnasium's, eight times as
large, with their difference. scores: the shipped agent on the same tracks in both, with the interval of the paired
difference; an interrupted comparison continues. speed: steps of one environment in one process, taken in turns.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image

import worldmodels
import worldmodels.tasks.base
from worldmodels.core.intervals import half_width
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import episode_seeds
from worldmodels.evaluation import agent_policy, evaluate
from worldmodels.execution.executor import make_executor
from worldmodels.tasks import get_task

FAST, STOCK = "worldmodels.tasks.car_racing:worldmodels/CarRacing-v3", "CarRacing-v3"
OFF = 16
"""Difference of one colour of a pixel, of 255, above which the pixel counts as wrong."""


def pictures(seeds: int, steps: int, out: Path) -> None:
    """Drive in both, compare everything, and print one line per result."""
    agent = worldmodels.load_agent("car-racing")
    task = get_task("car-racing")
    fast, stock = (gymnasium.make(name).unwrapped for name in (FAST, STOCK))
    means, shares, worst, z_errors, z_all = [], [], (-1.0, None), [], []
    with Progress(seeds, "pictures", "tracks") as bar:
        for seed in range(seeds):
            # Three quarters follow the road with lapses, one quarter acts at random: grass, spins and kerbs.
            driver = task.perturbed(task.exploration([seed]), [seed])
            left, right = (env.reset(seed=seed)[0] for env in (fast, stock))
            for step in range(steps):
                assert fast.car.hull.position == stock.car.hull.position and fast.car.hull.angle == stock.car.hull.angle
                difference = np.abs(left.astype(int) - right)
                mean, share = difference.mean(), (difference.max(axis=2) > OFF).mean()
                means.append(mean)
                shares.append(share)
                if mean > worst[0]:
                    worst = mean, (left, right, f"seed {seed}, step {step}")
                if step % 5 == 0:
                    pair = agent.encode(task.frames(np.stack([left, right])))[0].numpy()
                    z_errors.append(pair[0] - pair[1])
                    z_all.append(pair[1])
                observations = worldmodels.tasks.base.Observations(task, right[None])
                action = driver.act(observations, np.arange(1))[0]
                (left, gained, *ends), (right, *wanted) = (
                    (result[0], *result[1:4]) for result in (fast.step(action), stock.step(action))
                )
                assert [gained, *ends] == wanted, f"seed {seed}, step {step}: {gained, ends} against {wanted}"
                if ends[0] or ends[1]:
                    break
            bar.advance()
    print(f"{len(means):,} pictures of {seeds} tracks; every state, reward and end is the same")
    print(f"mean absolute difference {np.mean(means):.3f} of 255 (worst picture {np.max(means):.2f})")
    print(f"pixels off by more than {OFF}: {np.mean(shares):.3%} (worst picture {np.max(shares):.2%})")
    errors, z = np.array(z_errors), np.array(z_all)
    relative = errors.std(axis=0) / z.std(axis=0)
    print(
        f"V's latents: difference {np.median(relative):.1%} of a dimension's sd (worst dimension {relative.max():.1%})"
    )
    left, right, where = worst[1]
    print(f"worst picture: {where}, saved as {out / 'worst.png'}: fast, Gymnasium's, their difference times 4")
    out.mkdir(parents=True, exist_ok=True)
    strip = np.concatenate(
        [left, right, np.minimum(4 * np.abs(left.astype(int) - right), 255).astype(np.uint8)], axis=1
    )
    Image.fromarray(strip).resize((8 * strip.shape[1], 8 * strip.shape[0]), Image.Resampling.NEAREST).save(
        out / "worst.png"
    )


def scores(episodes: int, seed: int, steps: int, out: Path) -> None:
    """Score the shipped agent in both and print the difference; steps: of an episode (0: the task's limit)."""
    agent, seeds = worldmodels.load_agent("car-racing"), episode_seeds("evaluation", seed, episodes)
    out.mkdir(parents=True, exist_ok=True)
    returns = {}
    with contextlib.closing(make_executor()) as executor:
        for backend in ("fast", "gymnasium"):
            file = out / f"{backend}.json"
            policy, count = agent_policy(agent), agent.task.num_envs
            returns[backend] = evaluate(
                executor, agent.task, policy, backend, seeds, count, steps, file, agent.digest(), agent.device
            ).returns
    difference = returns["fast"] - returns["gymnasium"]
    half = half_width(float(difference.std(ddof=1)), episodes)
    assert half is not None
    for name, values in returns.items():
        print(f"{name}: mean {values.mean():.1f}, sd {values.std(ddof=1):.1f}, median {np.median(values):.1f}")
    mean = difference.mean()
    print(f"paired difference, fast - gymnasium: {mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})")
    (out / "scores.json").write_text(json.dumps({name: values.tolist() for name, values in returns.items()}))


def speed(seeds: int, steps: int) -> None:
    """Drive the same way in both, a track at a time in turns, and print how long steps and resets take."""
    task = get_task("car-racing")
    environments = {name: gymnasium.make(name) for name in (FAST, STOCK)}
    seconds: dict[str, list[float]] = {name: [] for name in environments}
    resets: dict[str, list[float]] = {name: [] for name in environments}
    for seed in range(-1, seeds):  # the first, which warms up, does not count
        for name, env in environments.items():
            driver, began = task.exploration([seed + 1]), time.perf_counter()
            seen, _ = env.reset(seed=seed + 1)
            resets[name].append(time.perf_counter() - began)
            for _ in range(steps):
                action = driver.act(worldmodels.tasks.base.Observations(task, seen[None]), np.arange(1))[0]
                began = time.perf_counter()
                seen, _, terminated, truncated, _ = env.step(action)
                if seed >= 0:
                    seconds[name].append(time.perf_counter() - began)
                if terminated or truncated:
                    break
    mean = {name: 1e3 * float(np.mean(values)) for name, values in seconds.items()}
    for name, label in ((FAST, "fast"), (STOCK, "Gymnasium's")):
        reset = 1e3 * float(np.median(resets[name][1:]))
        print(
            f"{label}: {mean[name]:.3f} ms a step (median {1e3 * np.median(seconds[name]):.3f}), {reset:.1f} ms a reset"
        )
    print(f"{mean[STOCK] / mean[FAST]:.1f} times as fast, step against step")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "scores", "speed"))
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--steps", type=int, help="of an episode (default: 100; scores: whole episodes)")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--out", type=Path, default=Path("car-racing-same"))
    options = parser.parse_args()
    if options.what == "pictures":
        pictures(options.seeds, options.steps or 100, options.out)
    elif options.what == "speed":
        speed(options.seeds, options.steps or 100)
    else:
        scores(options.episodes, options.seed, options.steps or 0, options.out)


if __name__ == "__main__":
    main()
