"""Are Doom's dreams as dangerous as the game? Deaths per 100 tics, dreamt and real, by how long the game has lasted.

python benchmarks/take_cover_deaths.py [--agent RUN_OR_FILE] [--dream-model RUN_OR_FILE] [--games 100] [--seed 1]
    [--temperature 1.15] [--termination threshold] [--out FILE]

The agent plays fresh games. From every hundredth tic of each of them on, four dreams go on where the game stands, with
the state that M has after following it so far; C acts in the dream as it does in the game. A share of the moments ends
in the next 100 tics, in the game and in the dream. With another agent that has the same V as dream model, its M dreams
and the agent's own M only follows, as in an evolution with --memory.dream-models.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

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
from worldmodels.dream.dreams import TERMINATIONS, Dreams
from worldmodels.execution.executor import make_executor
from worldmodels.tasks.base import Policy

AHEAD, DREAMS = 100, 4
BANDS = ((0, 300), (300, 700), (700, 2000))
"""In tics that the game has lasted: the first of a band belongs to it, the last does not."""


def played(agent: Agent, games: int, seed: int) -> list[Episode]:
    """Games of the agent."""
    executor, seeds = make_executor(), episode_seeds("report", seed, games)
    episodes: list[Episode] = []

    def policy(chosen: Sequence[int]) -> Policy:
        return agent.policy(len(chosen), seeds=chosen)

    try:
        with Progress(games, "games", "games") as progress:
            for first in range(0, games, 50):
                part = seeds[first : first + 50]
                episodes += record_episodes(executor, agent.task, "vizdoom", policy, part, agent.task.max_steps)
                progress.advance(len(part))
    finally:
        executor.close()
    return episodes


def states(agent: Agent, dreaming: Agent, episodes: list[Episode]) -> tuple[torch.Tensor, ...]:
    """z, h, c and age (n, 1) at every hundredth tic of the games."""
    found: list[tuple[torch.Tensor, ...]] = []
    with Progress(len(episodes), "follow", "games") as progress:
        for episode in episodes:
            ages = torch.arange(0, len(episode.actions), AHEAD)
            own = encode_episode(agent, episode)
            parts = [own] if dreaming is agent else [own, encode_episode(dreaming, episode)]
            h, c = (torch.cat([getattr(part, name)[ages] for part in parts], dim=1) for name in ("h", "c"))
            found.append((own.z[ages], h, c, ages[:, None].float()))
            progress.advance()
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def dreamt(agent: Agent, dreams: Dreams, moments: tuple[torch.Tensor, ...]) -> np.ndarray:
    """Which dreams end within AHEAD tics, (DREAMS, moments) bool."""
    z, h, c, ages = (torch.cat([part] * DREAMS) for part in moments)
    dreams.reset(range(len(ages)))
    dreams.move(z, h, c, ages)
    controllers = agent.controllers(agent.controller[None].expand(len(ages), -1))
    ended = torch.zeros(len(ages), dtype=torch.bool)
    for _ in range(AHEAD):
        actions = agent.task.dream_action(controllers.in_order(dreams.policy_inputs()))
        ended |= dreams.step(actions)[1]
    return ended.view(DREAMS, -1).numpy()


def main() -> None:
    """Print one line per band."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="take-cover", help="a name, a run or a file (default: the shipped agent)")
    parser.add_argument("--dream-model", help="another agent whose M dreams (default: the agent's own)")
    parser.add_argument("--games", type=int, default=100, help="games (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the games (default 1)")
    parser.add_argument("--temperature", type=float, default=1.15, help="of the dreams (default 1.15)")
    parser.add_argument("--termination", choices=TERMINATIONS[:2], default="threshold", help="how dreams end")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    agent = worldmodels.load_agent(options.agent)
    dreaming = agent if options.dream_model is None else worldmodels.load_agent(options.dream_model)
    with torch_threads(1), torch.inference_mode():
        episodes = played(agent, options.games, options.seed)
        moments = states(agent, dreaming, episodes)
        dreams = Dreams(
            agent,
            options.temperature,
            options.termination,
            dream_model=None if dreaming is agent else dreaming,
        )
        ends = dreamt(agent, dreams, moments)
    lengths = np.array([len(one.actions) for one in episodes])
    died = np.array([one.terminated for one in episodes])
    games = np.repeat(np.arange(len(episodes)), -(-lengths // AHEAD))
    ages = moments[3][:, 0].numpy()
    in_game = died[games] & (lengths[games] <= ages + AHEAD)
    figures = []
    print(f"{len(episodes)} games, {lengths.mean():.1f} tics on average")
    for first, last in BANDS:
        here = (ages >= first) & (ages < last)
        if not here.any():
            continue
        real, dream = float(in_game[here].mean()), float(ends[:, here].mean())
        figures.append({"from": first, "to": last, "moments": int(here.sum()), "game": real, "dream": dream})
        print(f"from {first} to {last} tics, {here.sum()} moments: game {real:.3f}, dream {dream:.3f} per 100 tics")
    if options.out is not None:
        write_json(options.out, {"seed": options.seed, "mean": float(lengths.mean()), "bands": figures})


if __name__ == "__main__":
    main()
