"""Train Stable-Baselines3's PPO inside an agent's dreams and play the result in the real world.

    pip install "worldmodels[rl,car]"
    python examples/ppo_in_a_dream.py --steps 500000

V and M are the agent's; its C is not used. PPO gets the inputs that C would get (z and h), from 64 dreams at a time.
"""

import argparse

import gymnasium
import numpy as np
from stable_baselines3 import PPO

from worldmodels.dream.latent_world import LatentWorld
from worldmodels.dream.stable_baselines import DreamVecEnv
from worldmodels.evaluation import statistics
from worldmodels.tasks.base import playing_of


def main() -> None:
    """Train in dreams, then play in the real world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="car-racing-dream", help="a shipped agent's name or the path of an agent")
    parser.add_argument("--steps", type=int, default=500_000, help="training steps in dreams")
    parser.add_argument("--dream-length", type=int, default=300, help="longest dream, in steps")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the dreams; above 1 they are more uncertain")
    parser.add_argument("--episodes", type=int, default=10, help="real episodes that are played after training")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    dreams = DreamVecEnv(64, agent=options.agent, max_steps=options.dream_length, temperature=options.temperature)
    model = PPO("MlpPolicy", dreams, n_steps=128, batch_size=1024, seed=options.seed, device="cpu", verbose=1)
    model.learn(options.steps)

    agent = dreams.dreams.agent
    stock = playing_of(agent.task)
    world = LatentWorld(gymnasium.make(stock.gymnasium_id, **stock.gymnasium_options), agent)
    returns = []
    for episode in range(options.episodes):
        observation, _ = world.reset(seed=options.seed + episode)
        total, over = 0.0, False
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = world.step(action)
            total, over = total + reward, terminated or truncated
        returns.append(total)
        print(f"real episode {episode + 1}: {total:.1f}")
    world.close()
    result = statistics(np.array(returns))
    interval = "95% interval {:.1f} to {:.1f}".format(*result["ci95"]) if result["ci95"] else "no interval for one"
    print(f"mean {result['mean']:.1f} over {len(returns)} real episodes, {interval}")


if __name__ == "__main__":
    main()
