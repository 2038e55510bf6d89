# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own world
#
# Any Gymnasium environment that shows a picture can be learned, also one that you have just thought of. This
# notebook writes a small game, trains an agent in it, scores it against random play, and dreams it. It takes about
# four minutes on two cores.

# %% tags=["parameters"]
RUN = "runs/notebook-river"
SETTINGS = {
    "collect.episodes": 64,
    "evolution.phases.real.generations": 15,
    "evaluate.episodes": 50,
}
DREAM_STEPS = 160

# %%
import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import worldmodels

# %matplotlib inline
plt.rcParams |= {"figure.dpi": 72, "figure.figsize": (8, 2.6), "axes.spines.top": False, "axes.spines.right": False}


def strip(*rows: np.ndarray, scale: int = 2) -> Image.Image:
    """Rows of frames (n, 64, 64, 3) as one picture."""
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).quantize(128)


# %% [markdown]
# ## A game
#
# A boat drifts down a winding river, and the camera stays above it. The rudder turns it left or right, but it slides
# on for a while, and nothing in a single picture shows how fast. Every step of 200 in the water is worth 1, one on
# land nothing.
#
# The game goes into a file, because episodes are played in other processes, which import it from there. It knows
# nothing of worldmodels.

# %%
# %%writefile river.py
import gymnasium
import numpy as np
from gymnasium import spaces

STEPS = 200
BOAT = 12  # rows between the boat and the lower edge of the picture
WATER, BANK, HULL = (60, 110, 190), (70, 130, 60), (240, 200, 90)


class River(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        self.action_space = spaces.Discrete(3)  # straight on, left, right

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        rows, phases = np.arange(STEPS + 64), self.np_random.uniform(0, 2 * np.pi, 3)
        bends = [15 * np.sin(rows / 18 + phases[0]), 5 * np.sin(rows / 9 + phases[1])]
        self.middle = bends[0] + bends[1]
        self.reach = 7 + 2 * np.sin(rows / 20 + phases[2])  # from the middle to a bank
        self.at, self.x, self.sideways = 0, self.middle[BOAT], 0.0
        return self.render(), {}

    def step(self, action):
        self.sideways = 0.85 * self.sideways + 0.35 * (0, -1, 1)[action]
        self.at += 1
        middle, reach = self.middle[self.at + BOAT], self.reach[self.at + BOAT]
        self.x = np.clip(self.x + self.sideways, middle - 24, middle + 24)  # behind it, there are hills
        return self.render(), float(abs(self.x - middle) < reach), False, False, {}

    def render(self):
        ahead = np.arange(self.at + 63, self.at - 1, -1)[:, None]  # the row furthest ahead is on top
        wet = abs(self.x + np.arange(-32, 32) - self.middle[ahead]) < self.reach[ahead]
        picture = np.where(wet[:, :, None], WATER, BANK).astype(np.uint8)
        picture[63 - BOAT - 3 : 63 - BOAT + 3, 30:35] = HULL
        return picture


gymnasium.register("River-v0", entry_point=River, max_episode_steps=STEPS)

# %% [markdown]
# Random play shows how hard it is. The name of the world is the module, a colon, and the id that the module
# registers.

# %%
WORLD = "river:River-v0"
env = gymnasium.make(WORLD)
env.action_space.seed(1)
pictures, random_returns = [], []
for seed in range(50):
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        if seed == 0:
            pictures.append(observation)
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        total, ended = total + reward, terminated or truncated
    random_returns.append(total)
print(f"random play is in the water for {np.mean(random_returns):.0f} of 200 steps")
strip(np.stack(pictures)[np.linspace(0, len(pictures) - 1, 8).astype(int)])

# %% [markdown]
# ## Train
#
# `gym:` before the name makes a task of it. Its settings follow from the spaces and the length of episodes, which a
# few random episodes tell; here, some are made smaller. This records, trains V and M, evolves C and scores it: what
# `worldmodels train gym:river:River-v0 --preset quick` does. Running the cell again continues, or does nothing.

# %%
config = worldmodels.preset("quick", f"gym:{WORLD}", seed=1, **SETTINGS)
run = worldmodels.train(config, RUN)
score = run.evaluation()
print(f"the agent is in the water for {score['mean']:.0f} of 200 steps, on {score['episodes']} fresh rivers")

# %%
curve = run.metrics("controller/1-real")
figure, axes = plt.subplots(ncols=2, layout="constrained")
axes[0].plot(curve["step"], curve["best"], label="best candidate")
axes[0].plot(curve["step"], curve["mean"], label="mean of the generation")
axes[0].set(xlabel="generation", ylabel="steps in the water")
axes[0].legend()
steps = np.linspace(0, 200, 21)
axes[1].hist([random_returns, score["returns"]], bins=steps, density=True, label=["random", "agent"])
axes[1].set(xlabel="steps in the water", yticks=[])
axes[1].legend()
plt.show()

# %% [markdown]
# ## See what it sees
#
# A trip of the agent, and below it what V makes of the pictures. If something that matters were missing there, C
# could not act on it: V would need more frames or epochs, or the world larger things.

# %%
agent = run.agent()
policy, observation = agent.policy(1), env.reset(seed=2000)[0]
pictures, total, ended = [observation], 0.0, False
while not ended:
    observation, reward, terminated, truncated, _ = env.step(policy.act(observation[None])[0])
    pictures.append(observation)
    total, ended = total + reward, terminated or truncated
shown = np.stack(pictures)[np.linspace(0, len(pictures) - 1, 8).astype(int)]
with torch.inference_mode():
    mu, _ = agent.vision.encode(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255)
print(f"{total:.0f} of {len(pictures) - 1} steps in the water")
strip(shown, agent.decode(mu))

# %% [markdown]
# ## Dream it
#
# The agent steers through a river that M imagines.

# %%
dreams = gymnasium.make_vec("worldmodels.dream.env:worldmodels/Dream-v0", num_envs=1, agent=agent, temperature=0.8)
observation, _ = dreams.reset(seed=3)
controller = agent.controllers(agent.controller[None])
pictures = []
for step in range(DREAM_STEPS):
    if step % (DREAM_STEPS // 8) == 0:
        pictures.append(dreams.unwrapped.frames()[0])
    with torch.inference_mode():
        control = controller(torch.from_numpy(observation), None)
    observation, reward, *_ = dreams.step(agent.task.env_action(control.numpy()))
strip(np.stack(pictures[:8]))

# %% [markdown]
# ## What next
#
# - On the command line, in the folder of `river.py`: `worldmodels watch gym:river:River-v0 --agent
#   runs/notebook-river`, and `worldmodels play gym:river:River-v0` to steer yourself.
# - To crop pictures, to explore better than at random, to forbid actions or to keep presets, write a task:
#   `worldmodels new-task my-world` makes a small package to change.
