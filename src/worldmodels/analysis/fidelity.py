"""How true dreams are: predictions of M held against what really happened.

Legend: E episodes, T steps, S starts, K steps ahead, Z latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from worldmodels.core import interrupt
from worldmodels.agent import Agent
from worldmodels.core.device import generator
from worldmodels.dream.dreams import Dreams
from worldmodels.memory.mdnrnn import State
from worldmodels.data.episodes import Episode

FRAME_STEPS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 75, 100, 150, 200)
"""Steps ahead at which frames are decoded and compared; every one would take most of the time."""


@dataclass(frozen=True)
class Watched:
    """One real episode as V and M live it: mu and a drawn z (T+1, Z), the state of M before each step (T+1, H)."""

    episode: Episode
    mu: Tensor
    z: Tensor
    h: Tensor
    c: Tensor


@torch.inference_mode()
def watch(agent: Agent, episode: Episode) -> Watched:
    """Encode an episode and let M follow it."""
    coded = [agent.encode(part) for part in np.array_split(episode.frames, -(-len(episode.frames) // 256))]
    mu, logvar = (torch.cat(parts) for parts in zip(*coded, strict=True))
    # M foresees drawn z; held against mu, dimensions that V leaves to chance would count as errors of the dream.
    z = mu + torch.exp(logvar / 2) * torch.randn(mu.shape, generator=generator(episode.seed, 53)).to(mu.device)
    actions = torch.from_numpy(episode.actions).to(agent.device)
    state: State = agent.memory.initial_state(1)
    states = [state]
    for step in range(len(actions)):
        state = agent.memory.step(mu[step : step + 1], actions[step : step + 1], state)
        states.append(state)
    return Watched(episode, mu, z, torch.cat([h for h, _ in states]), torch.cat([c for _, c in states]))


@dataclass(frozen=True)
class OpenLoop:
    """Root mean square errors 1 to K steps ahead, (K,): of the dream, of assuming that nothing changes, of a guess.

    ``latent`` is in units of z; ``frame`` in grey levels (0 to 255), NaN where frames were not compared, beside what V
    itself loses.
    """

    latent: np.ndarray
    latent_still: np.ndarray
    latent_guess: float
    frame: np.ndarray
    frame_still: np.ndarray
    frame_floor: float
    starts: int


@torch.inference_mode()
def open_loop(agent: Agent, watched: Sequence[Watched], horizon: int, starts: int, seed: int) -> OpenLoop:
    """Dream on from moments of real episodes, with the actions that were really taken, up to ``horizon`` steps."""
    rng = np.random.default_rng([seed, 51])
    moments = [
        (one, int(start))
        for one in watched
        if len(one.episode.actions) > horizon
        for start in rng.integers(0, len(one.episode.actions) - horizon, starts)
    ]
    empty = np.full(horizon, np.nan)
    if not moments:
        return OpenLoop(empty, empty, float("nan"), empty, empty, float("nan"), 0)
    dreams = Dreams(agent)
    dreams.reset(rng.integers(1 << 31, size=len(moments)).tolist())
    dreams.z = torch.stack([one.z[start] for one, start in moments])
    dreams.h = torch.stack([one.h[start] for one, start in moments])
    dreams.c = torch.stack([one.c[start] for one, start in moments])
    first = dreams.z.clone()
    still = agent.decode(first).astype(np.float32)
    latent, latent_still, frame, frame_still = (empty.copy() for _ in range(4))
    floors = []
    for ahead in range(1, horizon + 1):
        interrupt.check()
        actions = np.stack([one.episode.actions[start + ahead - 1] for one, start in moments])
        dreams.step(torch.from_numpy(actions).to(agent.device))
        real = torch.stack([one.z[start + ahead] for one, start in moments])
        latent[ahead - 1] = (dreams.z - real).square().mean().sqrt().item()
        latent_still[ahead - 1] = (first - real).square().mean().sqrt().item()
        if ahead in FRAME_STEPS:
            seen = np.stack([one.episode.frames[start + ahead] for one, start in moments]).astype(np.float32)
            frame[ahead - 1] = _rms(agent.decode(dreams.z) - seen)
            frame_still[ahead - 1] = _rms(still - seen)
            floors.append(_rms(agent.decode(torch.stack([one.mu[start + ahead] for one, start in moments])) - seen))
    every = torch.cat([one.z for one in watched])
    guess = (2 * every.var(dim=0).mean()).sqrt().item()
    return OpenLoop(latent, latent_still, guess, frame, frame_still, float(np.mean(floors)), len(moments))


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference.astype(np.float64) ** 2).mean()))


@dataclass(frozen=True)
class Predicted:
    """How well reward and end are foreseen one step ahead.

    reward_correlation: of rewards summed over ``window`` steps; end_auc: chance that a step that ends is given a higher
    probability than one that does not; end_recall and end_precision where the weighted end head
    exceeds 0.5, which is what ends dreams by threshold. allowed_accuracy: share of the
    controls of which M tells rightly whether they are allowed. NaN where there is nothing to tell apart.
    """

    reward_correlation: float
    window: int
    end_auc: float
    end_recall: float
    end_precision: float
    ends: int
    steps: int
    allowed_accuracy: float


@dataclass(frozen=True)
class Foreseen:
    """What M foretold one step ahead and what came: sums of rewards over windows (W,), logits and ends of steps (T,).

    ``logit`` is that of the weighted end head, ``chance`` the probability of an end that it stands for. Parts that M
    does not foretell are empty.
    """

    reward: np.ndarray
    reward_real: np.ndarray
    logit: np.ndarray
    chance: np.ndarray
    end: np.ndarray


@torch.inference_mode()
def foresee(agent: Agent, watched: Sequence[Watched], window: int = 20) -> Foreseen:
    """Follow real episodes with M."""
    parts = [[np.zeros(0)] for _ in range(4)]
    ends = [np.zeros(0, bool)]
    for one in watched:
        prediction, steps = agent.memory.heads(one.h[1:]), len(one.episode.actions)
        if prediction.reward is not None:
            whole = steps // window * window
            for sums, values in zip(parts, (prediction.reward.cpu().numpy(), one.episode.rewards), strict=False):
                sums.append(values[:whole].reshape(-1, window).sum(axis=1))
        if prediction.end_logit is not None:
            parts[2].append(prediction.end_logit.cpu().numpy())
            parts[3].append(torch.sigmoid(agent.memory.end_odds(prediction.end_logit)).cpu().numpy())
            ends.append((np.arange(steps) == steps - 1) & one.episode.terminated)
    reward, real, logit, chance = (np.concatenate(part) for part in parts)
    return Foreseen(reward, real, logit, chance, np.concatenate(ends))


def predicted(agent: Agent, watched: Sequence[Watched], window: int = 20) -> Predicted:
    """How well reward and end of real episodes are foreseen."""
    seen = foresee(agent, watched, window)
    alarm, hits = seen.logit > 0, float(((seen.logit > 0) & seen.end).sum())
    return Predicted(
        correlation(seen.reward, seen.reward_real) if len(seen.reward) else float("nan"),
        window,
        area_under_curve(seen.logit, seen.end),
        hits / seen.end.sum() if seen.end.any() else float("nan"),
        hits / alarm.sum() if alarm.any() else float("nan"),
        int(seen.end.sum()),
        sum(len(one.episode.actions) for one in watched),
        _allowed_accuracy(agent, watched),
    )


@torch.inference_mode()
def _allowed_accuracy(agent: Agent, watched: Sequence[Watched]) -> float:
    if agent.memory.allowed_head is None:
        return float("nan")
    right = []
    for one in watched:
        real = agent.task.allowed(one.episode.frames)
        assert real is not None
        right.append(((agent.memory.allowed_logits(one.z) > 0).cpu().numpy() == real).mean(axis=1))
    return float(np.concatenate(right).mean())


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r of two samples (N,); NaN where one of them does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan")


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) from 0 on; equal values share the mean of theirs."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a true case (N,) bool has a higher score (N,) than a false one; ties count half."""
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, side="left") + np.searchsorted(negative, positive, side="right")
    return float(below.mean() / 2 / len(negative))


def controllers_of_all_strengths(agent: Agent, count: int, seed: int) -> np.ndarray:
    """The agent's controller faded out and disturbed to all degrees, (count, P): good ones, bad ones, and between."""
    rng = np.random.default_rng([seed, 52])
    best = agent.controller.double().numpy()
    share = np.linspace(1.0, 0.0, count)[:, None]
    size = np.sqrt((best**2).mean()) * rng.choice([0.0, 0.3, 0.6, 1.0], (count, 1))
    return np.asarray(share * best + (1 - share) * size * rng.standard_normal((count, len(best))))
