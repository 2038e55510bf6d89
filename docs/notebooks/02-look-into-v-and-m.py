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
# # Look into V and M
#
# What do the 32 numbers mean, what does M expect, what does its hidden state know that a single picture cannot
# show, and for how long does a dream stay true? The shipped agent answers, so that nothing has to be trained; it
# takes about two minutes. Any run or agent of CarRacing can be put in its place.

# %% tags=["parameters"]
AGENT = "car-racing"
TRACKS = 12
STEPS = 400
HORIZON = 60
ZOOM = 60

# %%
import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import worldmodels
from worldmodels.analysis.fidelity import FRAME_STEPS, encode_episode, open_loop
from worldmodels.data.episodes import Episode

# %matplotlib inline
plt.rcParams |= {"figure.dpi": 72, "figure.figsize": (8, 2.8), "axes.spines.top": False, "axes.spines.right": False}
agent = worldmodels.load_agent(AGENT)
print(agent)


def strip(*rows: np.ndarray, scale: int = 2) -> Image.Image:
    """Rows of frames (n, 64, 64, 3) as one picture."""
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).quantize(128)


# %% [markdown]
# ## Some drives to look at
#
# The agent drives, with noise on its steering, so that it also gets to see kerbs and grass. Besides what V and M
# see, the simulator tells the true speed and rotation of the car.

# %%
world = gymnasium.make("worldmodels.tasks.car_racing:worldmodels/CarRacing-v3")
noise = np.random.default_rng(1)
episodes, truths = [], []
for track in range(TRACKS):
    observation, _ = world.reset(seed=9000 + track)
    policy = agent.policy(1)
    frames, actions, rewards, truth = [agent.task.frames(observation[None])[0]], [], [], []
    steering, ended = 0.0, False
    while not ended and len(actions) < STEPS:
        car = world.unwrapped.car.hull
        truth.append([car.linearVelocity.length, car.angularVelocity])
        steering = 0.9 * steering + 0.1 * noise.normal()
        action = policy.act(observation[None])[0]
        action[0] = np.clip(action[0] + steering, -1, 1)
        observation, reward, terminated, truncated, _ = world.step(action)
        ended = terminated or truncated
        frames.append(agent.task.frames(observation[None])[0])
        actions.append(action)
        rewards.append(reward)
    episodes.append(
        Episode(np.stack(frames), np.stack(actions), np.array(rewards, np.float32), bool(terminated), track, "fast")
    )
    truths.append(np.array(truth))
encoded = [encode_episode(agent, episode) for episode in episodes]
print([f"{episode.rewards.sum():.0f}" for episode in episodes])

# %% [markdown]
# ## What the numbers of z mean
#
# Take one frame, change a single number of its z, and decode. The numbers that vary most between frames come
# first.

# %%
mu = torch.cat([each.mu for each in encoded])
widest = mu.std(dim=0).argsort(descending=True)[:5].tolist()
middle = encoded[0].mu[len(encoded[0].mu) // 2]
rows = []
for number in widest:
    changed = middle.repeat(9, 1)
    changed[:, number] = torch.linspace(-2.5, 2.5, 9)
    rows.append(agent.decode(changed))
print("numbers", widest, "from -2.5 to 2.5")
strip(*rows)

# %% [markdown]
# ## What M expects
#
# For every number, M predicts a mixture of five Gaussians. Where the future is open, the mixture is wide or has
# several peaks; where it is not, it is narrow. Below, the densities for four numbers at one moment, and what came
# (the vertical line).

# %%
memory, chosen = agent.memory, encoded[0]
moment = len(chosen.episode.actions) // 2
with torch.inference_mode():
    mixture = memory.heads(chosen.h[moment + 1 : moment + 2]).mixture
weights, means, scales = (
    mixture.log_weights[0].exp().numpy(),
    mixture.means[0].numpy(),
    mixture.log_scales[0].exp().numpy(),
)
figure, axes = plt.subplots(ncols=4, layout="constrained", sharey=True)
for axis, number in zip(axes, widest, strict=False):
    x = np.linspace(means[number].min() - 1, means[number].max() + 1, 400)
    parts = weights[number] * np.exp(-0.5 * ((x[:, None] - means[number]) / scales[number]) ** 2) / scales[number]
    axis.plot(x, parts, lw=0.8, color="0.6")
    axis.plot(x, parts.sum(axis=1), color="tab:blue")
    axis.axvline(float(chosen.mu[moment + 1, number]), color="tab:red")
    axis.set_title(f"z[{number}]")
plt.show()

# %% [markdown]
# ## What the hidden state knows
#
# A single picture shows neither the speed of the car (V does not see the bar of indicators) nor its rotation. A
# linear map from z alone, and from h alone, is fitted to the true values on some drives and tested on the others.
# R² is 1 for perfect and 0 for useless. The first second is left out, because there the camera zooms in, which
# gives the speed away.


# %%
def r_squared(features: list[np.ndarray], column: int) -> float:
    """Of ridge regression from features to one of the true values, fitted on the first drives, tested on the others."""
    first = max(1, len(features) * 2 // 3)
    x, y = np.concatenate(features[:first]), np.concatenate([truth[ZOOM:, column] for truth in truths[:first]])
    mean = x.mean(axis=0)
    weights = np.linalg.solve((x - mean).T @ (x - mean) + np.eye(x.shape[1]), (x - mean).T @ (y - y.mean()))
    test, real = np.concatenate(features[first:]), np.concatenate([truth[ZOOM:, column] for truth in truths[first:]])
    return float(1 - np.mean(((test - mean) @ weights + y.mean() - real) ** 2) / real.var())


sources = {
    "z": [each.mu[ZOOM:-1].numpy() for each in encoded],
    "h": [each.h[ZOOM:-1].numpy() for each in encoded],
}
table = {name: [r_squared(features, column) for column in (0, 1)] for name, features in sources.items()}
figure, axis = plt.subplots(layout="constrained", figsize=(5, 2.6))
for offset, (name, values) in enumerate(table.items()):
    axis.bar(np.arange(2) + 0.3 * offset, np.maximum(values, 0), width=0.28, label=f"from {name}")
axis.set_xticks([0.15, 1.15], ["speed", "rotation"])
axis.set(ylabel="R²", ylim=(0, 1))
axis.legend()
plt.show()
table

# %% [markdown]
# ## For how long is a dream true?
#
# M dreams on from random moments, with the actions that were really taken, and is compared with what really came.
# Two simple predictions set the scale: that nothing changes, and a random moment of the drives (the dotted line).
# The real z is a sample, too, so that even a perfect dream has an error.

# %%
result = open_loop(agent, encoded, HORIZON, starts=10, seed=1)
ahead = np.arange(1, HORIZON + 1)
figure, axes = plt.subplots(ncols=2, layout="constrained")
axes[0].plot(ahead, result.latent, label="dream")
axes[0].plot(ahead, result.latent_still, label="nothing changes")
axes[0].axhline(result.latent_guess, ls=":", color="0.5")
axes[0].set(xlabel="steps ahead", title="error of z")
compared = [step for step in FRAME_STEPS if step <= HORIZON]
axes[1].plot(compared, result.frame[np.array(compared) - 1], "o-", label="dream")
axes[1].plot(compared, result.frame_still[np.array(compared) - 1], "o-", label="nothing changes")
axes[1].axhline(result.frame_floor, ls=":", color="0.5")
axes[1].set(xlabel="steps ahead", title="error of pictures, of 255")
axes[0].legend()
plt.show()

# %% [markdown]
# The dotted line on the right is the error of V alone. `worldmodels dream report car-racing` measures all of
# this, and more, over many drives.
#
# ## The same drive, dreamt and real
#
# Above, what really came; below, what M dreamt, from the same beginning and with the same actions.

# %%
from worldmodels.dream.dreams import Dreams

dreams = Dreams(agent, temperature=0.5)
dreams.reset([1])
start = min(100, len(chosen.episode.actions) // 2)
dreams.z, dreams.h, dreams.c = chosen.z[start][None], chosen.h[start][None], chosen.c[start][None]
length = min(64, len(chosen.episode.actions) - start)
dreamt = []
for step in range(length):
    dreamt.append(agent.decode(dreams.z)[0])
    dreams.step(torch.from_numpy(chosen.episode.actions[start + step][None]))
moments = np.linspace(0, length - 1, 8).astype(int)
strip(chosen.episode.frames[start + moments], np.stack(dreamt)[moments])
