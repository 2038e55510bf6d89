"""Does the dream know what steering is? Rewards under other controls than the recorded ones, dreamt and real.

python benchmarks/car_racing_controls.py [--agent RUN_OR_FILE ...] [--episodes 24] [--seed 1] [--out FILE]

The shipped agent drives fresh tracks, with lapses in which it holds some other action. From four moments of each
episode on, at which it has just visited tiles, the real car and dreams of each agent (its own M at temperature 1,
mean of four) drive 60 steps with the same controls: those that were recorded, those of another moment, and some that
are held. The real episode is replayed up to that moment. A dream whose car follows the road by itself pays for any of
them; an M that foretells what was recorded may still be such a dream. The last line gives the root mean square, over
all controls but the recorded ones and over three times 20 steps, of the difference between the mean rewards of dreams
and of the real world.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch

import worldmodels
from worldmodels.agent import Agent
from worldmodels.analysis.fidelity import encode_episode
from worldmodels.core.device import torch_threads
from worldmodels.core.files import write_json
from worldmodels.core.progress import Progress
from worldmodels.core.seeds import episode_seeds
from worldmodels.data.collect import record_episodes
from worldmodels.data.episodes import Episode
from worldmodels.dream.dreams import Dreams
from worldmodels.execution.executor import make_executor
from worldmodels.tasks.base import Policy

WORLD = "worldmodels.tasks.car_racing:worldmodels/CarRacing-v3"
STEPS, PART, MOMENTS, DREAMS = 60, 20, 4, 4
EARLIEST, LATEST = 60, 600
ON_THE_ROAD = 3.0
"""Rewards of the last 20 steps, 3.2 per tile and -0.1 per step, with which a moment counts as one on the road."""
HELD = {
    "straight on, gas 0.5": (0.0, 0.5, 0.0),
    "right 0.5, gas 0.3": (0.5, 0.3, 0.0),
    "left 0.5, gas 0.3": (-0.5, 0.3, 0.0),
    "brake 0.8": (0.0, 0.0, 0.8),
}
RECORDED, ANOTHER = "as recorded", "those of another moment"
Moments = list[tuple[Episode, int]]


def recorded(count: int, seed: int) -> list[Episode]:
    """Episodes of the shipped agent with lapses."""
    driver, executor = worldmodels.load_agent("car-racing"), make_executor()

    def policy(seeds: Sequence[int]) -> Policy:
        return driver.task.perturbed(driver.policy(len(seeds), seeds=seeds), seeds)

    try:
        return record_episodes(executor, driver.task, "fast", policy, episode_seeds("report", seed, count), 1000)
    finally:
        executor.close()


def chosen_moments(episodes: list[Episode], rng: np.random.Generator) -> Moments:
    """MOMENTS of every episode that has as many on the road."""
    moments: Moments = []
    for episode in episodes:
        earned = np.cumsum(np.concatenate([[0.0], episode.rewards]))
        starts = np.arange(EARLIEST, min(LATEST, len(episode.actions) - STEPS))
        starts = starts[earned[starts] - earned[starts - PART] >= ON_THE_ROAD]
        if len(starts) >= MOMENTS:
            moments += [(episode, int(start)) for start in rng.choice(starts, MOMENTS, replace=False)]
    return moments


def controls(moments: Moments, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Controls (moments, STEPS, 3) by name."""
    own = np.stack([episode.actions[start : start + STEPS] for episode, start in moments])
    held = {name: np.tile(np.array(action, np.float32), (len(moments), STEPS, 1)) for name, action in HELD.items()}
    return {RECORDED: own, ANOTHER: own[rng.permutation(len(own))], **held}


def real(moments: Moments, actions: np.ndarray, progress: Progress) -> np.ndarray:
    """Real rewards (moments, STEPS), zero after an end, each from an episode that is replayed up to its moment."""
    env, rewards = gymnasium.make(WORLD), np.zeros(actions.shape[:2])
    for row, (episode, start) in enumerate(moments):
        env.reset(seed=int(episode.seed))
        before = sum(float(env.step(action)[1]) for action in episode.actions[:start])
        assert np.isclose(before, episode.rewards[:start].sum(), atol=1e-3), "the replayed episode is another one"
        for step, action in enumerate(actions[row]):
            _, rewards[row, step], terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        progress.advance()
    env.close()
    return rewards


def dreamt(agent: Agent, moments: Moments, actions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mean rewards (moments, STEPS) of DREAMS dreams from every moment, by name of the controls."""
    encoded = {id(episode): encode_episode(agent, episode) for episode, _ in moments}
    z, h, c = (
        torch.stack([getattr(encoded[id(episode)], name)[start] for episode, start in moments] * DREAMS)
        for name in ("z", "h", "c")
    )
    ages = torch.tensor([[float(start)] for _, start in moments] * DREAMS)
    rewards = {}
    for name, chosen in actions.items():
        dreams = Dreams(agent)
        dreams.reset(range(len(ages)))
        dreams.move(z, h, c, ages)
        steps = [dreams.step(torch.from_numpy(np.tile(chosen[:, step], (DREAMS, 1))))[0] for step in range(STEPS)]
        rewards[name] = torch.stack(steps, dim=1).view(DREAMS, len(moments), STEPS).mean(dim=0).numpy()
    return rewards


def parts(rewards: np.ndarray) -> np.ndarray:
    """Mean rewards of the first, second and third 20 steps."""
    return np.asarray(rewards.reshape(len(rewards), -1, PART).sum(axis=2).mean(axis=0))


def main() -> None:
    """Print one line per kind of controls for the real world and for each agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", nargs="+", default=["car-racing"], help="agents: names, run folders or files")
    parser.add_argument("--episodes", type=int, default=24, help="real episodes (default 24)")
    parser.add_argument("--seed", type=int, default=1, help="seed of tracks, moments and lapses (default 1)")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    agents = {name: worldmodels.load_agent(name) for name in options.agent}
    moments = chosen_moments(recorded(options.episodes, options.seed), rng)
    actions = controls(moments, rng)
    with torch_threads(1):
        with Progress(len(moments) * len(actions), "replay", "moments") as progress:
            worlds = {"real": {name: real(moments, chosen, progress) for name, chosen in actions.items()}}
        for name, agent in agents.items():
            worlds[name] = dreamt(agent, moments, actions)
    figures: dict[str, dict[str, object]] = {}
    for world, rewards in worlds.items():
        means = {name: parts(one) for name, one in rewards.items()}
        figures[world] = {name: mean.round(2).tolist() for name, mean in means.items()}
        for name, mean in means.items():
            print(f"{world}: {name}: " + ", ".join(f"{value:.1f}" for value in mean))
        if world != "real":
            others = [means[name] - parts(worlds["real"][name]) for name in actions if name != RECORDED]
            figures[world]["error"] = round(float(np.sqrt(np.mean(np.square(others)))), 2)
            print(f"{world}: root mean square of the differences, other controls: {figures[world]['error']}")
    if options.out is not None:
        write_json(options.out, {"moments": len(moments), "seed": options.seed, "worlds": figures})


if __name__ == "__main__":
    main()
