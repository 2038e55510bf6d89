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
# # The paper in one notebook
#
# *World Models* (Ha & Schmidhuber, 2018) in six steps on CarRacing: record drives, learn to see (V), learn to
# predict (M), evolve a driver (C), score it, and let it drive in its own dream. Every step writes into the folder
# of a run, and running a cell again continues or does nothing: what is finished stays finished.
#
# With the settings below, all of it takes about five minutes on two cores. That is enough to see how it works,
# and too little for a good driver: the preset `quick` takes 6 to 10 minutes and `standard` 35 to 60.

# %% tags=["parameters"]
RUN = "runs/notebook-paper"
SETTINGS = {
    "collect.episodes": 24,
    "vision.epochs": 1.6,
    "memory.steps": 80,
    "evolution.starts": 1,
    "evolution.sequence": ["real", "visited"],
    "evolution.phases.real.generations": 8,
    "evolution.phases.real.validation-episodes": 8,
    "evolution.phases.real.validate-every": 4,
    "evolution.phases.visited.generations": 6,
    "evolution.phases.visited.validation-episodes": 8,
    "evolution.phases.visited.validate-every": 3,
    "evaluate.episodes": 4,
    "evaluate.num-envs": 4,
}
DREAM_STEPS = 120

# %%
import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from PIL import Image

import worldmodels

# %matplotlib inline
plt.rcParams |= {"figure.dpi": 72, "figure.figsize": (8, 2.6), "axes.spines.top": False, "axes.spines.right": False}
config = worldmodels.preset("quick", "car-racing", seed=1, **SETTINGS)


def strip(*rows: np.ndarray, scale: int = 2) -> Image.Image:
    """Rows of frames (n, 64, 64, 3) as one picture."""
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return Image.fromarray(picture).resize(size, Image.Resampling.NEAREST).quantize(128)


# %% [markdown]
# ## 1. Record drives
#
# The paper records 10,000 drives of a random policy. Here, a few noisy drivers of very different skill do: a
# quarter of them drive at random, the others follow the road, some well and some badly. V and M can only learn
# about what somebody has done.

# %%
run = worldmodels.run_stage("collect", config, RUN)
print(run.episode_count, "drives; returns from", run.returns().min().round(), "to", run.returns().max().round())
episode = run.episode(int(np.argmax(run.returns())))
strip(episode.frames[60 : len(episode.frames) : len(episode.frames) // 10][:8])

# %% [markdown]
# These are the 64 x 64 pictures that V sees, without the bar of indicators at the bottom.
#
# ## 2. V: learn to see
#
# A variational autoencoder compresses every frame to 32 numbers. Its loss has two parts: the squared error of the
# picture that it gives back, and the KL divergence, which keeps the numbers close to a standard normal
# distribution.

# %%
run = worldmodels.run_stage("vision", config, RUN)
curve = run.metrics("vision")
figure, axes = plt.subplots(ncols=2, layout="constrained")
for axis, part in zip(axes, ("reconstruction", "kl"), strict=True):
    axis.plot(curve["step"], curve[part])
    axis.set(xlabel="training step", title=part)
axes[0].set_yscale("log")
plt.show()

# %%
vision = run.vision()
moments = episode.frames[np.linspace(60, len(episode.frames) - 1, 8).astype(int)]
images = torch.from_numpy(moments).permute(0, 3, 1, 2).float() / 255
with torch.inference_mode():
    mu, logvar = vision.encode(images)
    decoded = (vision.decode(mu).permute(0, 2, 3, 1) * 255).byte().numpy()
strip(moments, decoded)

# %% [markdown]
# Above, what the camera sees, and below, what is left of it after V has squeezed it through 32 numbers.
#
# ## 3. M: learn to predict
#
# First, V encodes all frames once. Then a recurrent network learns the density of the next 32 numbers from those
# of now, the action, and its own memory h: for each number, a mixture of five Gaussians. It predicts the reward,
# too.

# %%
worldmodels.run_stage("encode", config, RUN)
run = worldmodels.run_stage("memory", config, RUN)
curve = run.metrics("memory")
figure, axis = plt.subplots(layout="constrained")
axis.plot(curve["step"], curve["nll"])
axis.set(xlabel="training step", title="negative log-likelihood per number, in nats")
plt.show()

# %% [markdown]
# ## 4. C: evolve a driver
#
# C is one linear map from z and h to three controls: 867 numbers. CMA-ES draws 16 of them at a time and lets each
# of them drive the same tracks; the next 16 are drawn around those that drove well. They differ along the principal
# components of z and h: those of the recorded drivers at first (the phase `real`), and those of C's own drives as soon
# as it drives at all (`visited`).

# %%
run = worldmodels.run_stage("controller", config, RUN)
phases = [run.metrics(f"controller/{phase}") for phase in ("1-real", "2-visited")]
curve = {name: np.concatenate([phase[name] for phase in phases]) for name in ("best", "mean", "validation")}
generation = 1 + np.arange(len(curve["mean"]))
figure, axis = plt.subplots(layout="constrained")
axis.plot(generation, curve["best"], label="best candidate")
axis.plot(generation, curve["mean"], label="mean of the generation")
validated = np.isfinite(curve["validation"])
axis.plot(generation[validated], curve["validation"][validated], "o-", label="validation of the mean")
axis.axvline(len(phases[0]["mean"]) + 0.5, color="0.7", linewidth=1)
axis.set(xlabel="generation (visited begins at the line)", ylabel="return")
axis.legend()
plt.show()

# %% [markdown]
# Only the validation compares like with like: every generation drives other tracks, at first for a little longer than
# the one before, then whole ones.
#
# ## 5. Score
#
# The mean over fresh tracks, never the best. Four tracks are far too few for a score; they only show how one is
# taken.

# %%
run = worldmodels.run_stage("evaluate", config, RUN)
score = run.evaluation()
lowest, highest = min(score["returns"]), max(score["returns"])
print(f"{score['mean']:.0f} on average over {score['episodes']} tracks, from {lowest:.0f} to {highest:.0f}")

# %% [markdown]
# ## 6. Dream
#
# M can stand in for the world: it draws the next z from its mixture, C acts on it, and so on. Nothing below comes
# from the simulator. V only decodes the numbers, so that people can watch. The shipped agent, which was trained
# for longer, dreams more sharply.

# %%
for name, agent in {"this run": run.agent(), "the shipped agent": worldmodels.load_agent("car-racing")}.items():
    dreams = gymnasium.make_vec("worldmodels.dream.env:worldmodels/Dream-v0", num_envs=1, agent=agent, temperature=0.8)
    observation, _ = dreams.reset(seed=3)
    controller = agent.controllers(agent.controller[None])
    pictures, total = [], 0.0
    for step in range(DREAM_STEPS):
        if step % (DREAM_STEPS // 8) == 0:
            pictures.append(dreams.unwrapped.frames()[0])
        with torch.inference_mode():
            control = controller(torch.from_numpy(observation), None)
        observation, reward, *_ = dreams.step(agent.task.env_action(control.numpy()))
        total += float(reward[0])
    print(f"{name}: dreamt return of {DREAM_STEPS} steps {total:.0f}")
    display(strip(np.stack(pictures[:8])))

# %% [markdown]
# ## What next
#
# - `worldmodels.train(worldmodels.preset("standard"), "runs/standard")` does all of this at a size that gives a
#   driver.
# - `worldmodels watch car-racing` shows the shipped driver, and `worldmodels dream play car-racing` puts you into
#   its dream.
# - The next notebook looks into V and M.
