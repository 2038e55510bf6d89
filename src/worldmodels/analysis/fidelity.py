"""The fidelity of dreams: predictions of M compared with what really happened.

Legend: T steps, S starts, K steps ahead, W windows, Z latent, H hidden, P parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.analysis.statistics import area_under_curve, correlation, share_in_top
from worldmodels.core import interrupt
from worldmodels.core.device import generator
from worldmodels.core.seeds import Stream
from worldmodels.data.episodes import Episode
from worldmodels.dream.dreams import Dreams
from worldmodels.memory.mdnrnn import State

FRAME_STEPS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 75, 100, 150, 200)
"""Steps ahead at which frames are decoded and compared; comparing at all of them would take too long."""
DANGEROUS = 0.05
"""Share of the steps that count as the most dangerous ones."""
_BATCH = 256
"""Frames encoded at a time."""


@dataclass(frozen=True)
class EncodedEpisode:
    """A real episode of T steps as the agent perceives it.

    mu, z: the mean and a sample of the latent of every frame, (T+1, Z); h, c: the state of M before every step and
    after the last one, (T+1, H).
    """

    episode: Episode
    mu: Tensor
    z: Tensor
    h: Tensor
    c: Tensor


@torch.inference_mode()
def encode_episode(agent: Agent, episode: Episode) -> EncodedEpisode:
    """Encode the frames of an episode with V and run M along it."""
    coded = [agent.encode(part) for part in np.array_split(episode.frames, -(-len(episode.frames) // _BATCH))]
    mu, logvar = (torch.cat(parts) for parts in zip(*coded, strict=True))
    # M predicts samples of z; compared with mu, their noise would count as errors of the dream.
    noise = torch.randn(mu.shape, generator=generator(episode.seed, Stream.FIDELITY_LATENTS))
    z = mu + torch.exp(logvar / 2) * noise.to(mu.device)
    actions, seen = torch.from_numpy(episode.actions).to(agent.device), z if agent.samples_z else mu
    state: State = agent.memory.initial_state(1)
    states = [state]
    for step in range(len(actions)):
        begun = torch.full((1,), float(step), device=agent.device)
        state = agent.memory.step(seen[step : step + 1], actions[step : step + 1], state, begun)
        states.append(state)
    return EncodedEpisode(episode, mu, z, torch.cat([h for h, _ in states]), torch.cat([c for _, c in states]))


@dataclass(frozen=True)
class OpenLoop:
    """Root mean square errors 1 to K steps ahead, each (K,), from S starts.

    latent: of the dream's z; latent_still: of the prediction that z does not change; latent_guess: the difference of z
    at two random moments, a number. frame, frame_still: the same for decoded frames in grey levels (0 to 255), NaN
    where frames were not compared; frame_floor: the error of V itself, which decodes its own mu, a number. starts: S.
    """

    latent: np.ndarray
    latent_still: np.ndarray
    latent_guess: float
    frame: np.ndarray
    frame_still: np.ndarray
    frame_floor: float
    starts: int


@torch.inference_mode()
def open_loop(agent: Agent, episodes: Sequence[EncodedEpisode], horizon: int, starts: int, seed: int) -> OpenLoop:
    """Dream from ``starts`` random moments of each real episode, with the actions that were really taken.

    horizon: K, how many steps ahead. Episodes of at most K steps are left out; if none is left, errors are NaN.
    """
    rng = np.random.default_rng([seed, Stream.FIDELITY_MOMENTS])
    moments = [
        (encoded, int(start))
        for encoded in episodes
        if len(encoded.episode.actions) > horizon
        for start in rng.integers(0, len(encoded.episode.actions) - horizon, starts)
    ]
    empty = np.full(horizon, np.nan)
    if not moments:
        return OpenLoop(empty, empty, float("nan"), empty, empty, float("nan"), 0)
    dreams = Dreams(agent)
    dreams.reset(rng.integers(1 << 31, size=len(moments)).tolist())
    z, h, c = (torch.stack([getattr(encoded, name)[start] for encoded, start in moments]) for name in ("z", "h", "c"))
    dreams.move(z, h, c, torch.tensor([[float(start)] for _, start in moments]))
    first = dreams.z.clone()
    still = agent.decode(first).astype(np.float32)
    latent, latent_still, frame, frame_still = (empty.copy() for _ in range(4))
    floors = []
    for ahead in range(1, horizon + 1):
        interrupt.check()
        actions = np.stack([encoded.episode.actions[start + ahead - 1] for encoded, start in moments])
        dreams.step(torch.from_numpy(actions).to(agent.device))
        real = torch.stack([encoded.z[start + ahead] for encoded, start in moments])
        latent[ahead - 1] = (dreams.z - real).square().mean().sqrt().item()
        latent_still[ahead - 1] = (first - real).square().mean().sqrt().item()
        if ahead in FRAME_STEPS:
            pictures = np.stack([encoded.episode.frames[start + ahead] for encoded, start in moments])
            mu = torch.stack([encoded.mu[start + ahead] for encoded, start in moments])
            frames = pictures.astype(np.float32)
            frame[ahead - 1] = _rms(agent.decode(dreams.z) - frames)
            frame_still[ahead - 1] = _rms(still - frames)
            floors.append(_rms(agent.decode(mu) - frames))
    all_z = torch.cat([encoded.z[: _shown(agent, encoded.episode)] for encoded in episodes])
    guess = (2 * all_z.var(dim=0).mean()).sqrt().item()
    return OpenLoop(latent, latent_still, guess, frame, frame_still, float(np.mean(floors)), len(moments))


def _shown(agent: Agent, episode: Episode) -> int:
    """How many frames of an episode show something."""
    return len(episode.frames) - int(episode.terminated and not agent.task.shows_end)


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference.astype(np.float64) ** 2).mean()))


@dataclass(frozen=True)
class Predictions:
    """M's predictions one step ahead of T real steps, and what happened; arrays that M does not predict are empty.

    reward, reward_real: sums over windows of steps, (W,); end_logit: of the end head, in whose loss ends have a higher
    weight, (T,); end_probability: with that weight taken out, (T,); end: whether the episode ended there, (T,) bool;
    hit_logit: of the hit head, and hit: whether the health fell, (T,) bool, both of the steps whose health is known.
    """

    reward: np.ndarray
    reward_real: np.ndarray
    end_logit: np.ndarray
    end_probability: np.ndarray
    end: np.ndarray
    hit_logit: np.ndarray = field(default_factory=lambda: np.zeros(0))
    hit: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))


@torch.inference_mode()
def predictions(agent: Agent, episodes: Sequence[EncodedEpisode], window: int = 20) -> Predictions:
    """M's predictions one step ahead along real episodes; rewards are summed over ``window`` steps."""
    reward, real, logit, probability, hit_logit = ([np.zeros(0)] for _ in range(5))
    ends, hits = ([np.zeros(0, bool)] for _ in range(2))
    for encoded in episodes:
        prediction, steps = agent.memory.heads(encoded.h[1:]), len(encoded.episode.actions)
        if prediction.reward is not None:
            whole = steps // window * window
            reward.append(prediction.reward.cpu().numpy()[:whole].reshape(-1, window).sum(axis=1))
            real.append(encoded.episode.rewards[:whole].reshape(-1, window).sum(axis=1))
        if prediction.end_logit is not None:
            logit.append(prediction.end_logit.cpu().numpy())
            probability.append(torch.sigmoid(agent.memory.unweighted_end_logit(prediction.end_logit)).cpu().numpy())
            ends.append((np.arange(steps) == steps - 1) & encoded.episode.terminated)
        health = encoded.episode.health
        if prediction.hit_logit is not None and health is not None:
            change = np.diff(health)
            known = np.isfinite(change)
            hit_logit.append(prediction.hit_logit.cpu().numpy()[known])
            hits.append(change[known] < 0)
    parts = reward, real, logit, probability, ends, hit_logit, hits
    return Predictions(*(np.concatenate(part) for part in parts))


@dataclass(frozen=True)
class PredictionScores:
    """How well M predicts reward, end and hits one step ahead, and the action mask; NaN for what cannot be measured.

    reward_correlation: of rewards summed over ``window`` steps. end_auc: probability that a step on which the episode
    ends is given a higher probability than one on which it does not; end_recall, end_precision: if an end is predicted
    where the end head exceeds 0.5, as in dreams with the termination "threshold". ends, steps: how many there were.
    mask_accuracy: the share of controls for which M predicts correctly whether they are allowed. hit_auc: as end_auc,
    for the steps in which the health fell; hit_top_share: the share of these steps that are among the 5% of all steps
    with the highest predicted probability of a hit (5% would be chance); hits: how many there were.
    """

    reward_correlation: float
    window: int
    end_auc: float
    end_recall: float
    end_precision: float
    ends: int
    steps: int
    mask_accuracy: float
    hit_auc: float = float("nan")
    hit_top_share: float = float("nan")
    hits: int = 0


def prediction_scores(agent: Agent, episodes: Sequence[EncodedEpisode], window: int = 20) -> PredictionScores:
    """How well M predicts real episodes one step ahead."""
    result = predictions(agent, episodes, window)
    predicted_end = result.end_logit > 0
    true_positives = float((predicted_end & result.end).sum())
    return PredictionScores(
        correlation(result.reward, result.reward_real) if len(result.reward) else float("nan"),
        window,
        area_under_curve(result.end_logit, result.end),
        true_positives / result.end.sum() if result.end.any() else float("nan"),
        true_positives / predicted_end.sum() if predicted_end.any() else float("nan"),
        int(result.end.sum()),
        sum(len(encoded.episode.actions) for encoded in episodes),
        _mask_accuracy(agent, episodes),
        area_under_curve(result.hit_logit, result.hit),
        share_in_top(result.hit_logit, result.hit, DANGEROUS),
        int(result.hit.sum()),
    )


@torch.inference_mode()
def _mask_accuracy(agent: Agent, episodes: Sequence[EncodedEpisode]) -> float:
    if agent.memory.mask_head is None:
        return float("nan")
    correct = []
    for encoded in episodes:
        mask = agent.task.action_mask(encoded.episode.frames)
        assert mask is not None
        correct.append(((agent.memory.mask_logits(encoded.z) > 0).cpu().numpy() == mask).mean(axis=1))
    return float(np.concatenate(correct).mean())


def controllers_of_all_strengths(agent: Agent, count: int, seed: int) -> np.ndarray:
    """Mixtures (count, P) of the agent's controller and random ones, from the agent's own to random ones."""
    rng = np.random.default_rng([seed, Stream.FIDELITY_CONTROLLERS])
    best = agent.controller.double().numpy()
    share = np.linspace(1.0, 0.0, count)[:, None]
    size = np.sqrt((best**2).mean()) * rng.choice([0.0, 0.3, 0.6, 1.0], (count, 1))
    return np.asarray(share * best + (1 - share) * size * rng.standard_normal((count, len(best))))
