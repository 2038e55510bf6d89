"""What bin packing allows: read off pictures, kept by agents, learnt by M, and obeyed in dreams."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodels.agent import Agent, load_agent, untrained_agent
from worldmodels.core.errors import UserError
from worldmodels.core.progress import Progress
from worldmodels.data.collect import record_episodes
from worldmodels.data.encode import encode_shard
from worldmodels.data.episodes import EpisodeStore, Shard
from worldmodels.data.latents import load_latents, save_latents
from worldmodels.dream.env import DreamVectorEnv
from worldmodels.evaluation import evaluate
from worldmodels.evolution.dream_fitness import DreamFitness
from worldmodels.execution.environments import make_envs
from worldmodels.execution.executor import LocalExecutor
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.train import SequenceSampler, train_memory
from worldmodels.rollouts import rollout
from worldmodels.tasks import get_task
from worldmodels.tasks.base import Observations
from worldmodels.vision.conv_vae import ConvVAE

CPU = torch.device("cpu")
TASKS = ["bin-packing", "bin-packing-9-linear-waste", "bin-packing-9-perfect-packing", "bin-packing-9-bounded-waste"]


@pytest.mark.parametrize("name", TASKS)
def test_what_is_allowed_is_read_off_the_picture(name: str) -> None:
    task = get_task(name)
    env, policy = make_envs(task, 20, "native"), task.exploration(range(20))
    frames, info = env.reset(seed=list(range(20)))
    for _ in range(200):
        allowed = task.action_mask(task.frames(frames))
        np.testing.assert_array_equal(allowed, info["action_mask"])
        actions = policy.act(Observations(task, frames), np.arange(20))
        assert allowed is not None and allowed[np.arange(20), actions].all()
        assert (task.memory_action(actions).argmax(axis=1) == actions).all()
        frames, _, terminated, _, info = env.step(actions)
        assert not terminated.any()
    assert env.single_action_space == task.action_space


def test_an_agent_never_chooses_what_does_not_fit() -> None:
    torch.manual_seed(0)
    task = get_task("bin-packing")
    memory = MDNRNN(4, 30, 8, 2, reward=True)
    agent = Agent(task, ConvVAE(4), memory, torch.randn(30 * 13), inputs=("z", "h"))
    played = rollout(task, make_envs(task, 6, "native"), agent.policy(6), list(range(6)), 300)
    assert not played.terminated.any() and (played.lengths == 300).all()
    # Biases alone, larger for fuller levels, under the mask: that is best fit.
    biased = torch.zeros(30 * 13)
    biased[:30] = torch.linspace(-1, 1, 30)
    seeds = list(range(100, 120))
    found = rollout(task, make_envs(task, 20, "native"), agent.policy(20, biased.expand(20, -1)), seeds, 1000).returns
    world, rule = task.rule("best-fit")
    wanted = evaluate(LocalExecutor(), world, rule, "native", seeds, 20).returns
    assert found.tolist() == wanted.tolist()


def forbidding(allowed: torch.Tensor) -> Agent:
    """An agent whose M holds just these controls (C,) for allowed, whatever it sees."""
    torch.manual_seed(0)
    task = get_task("bin-packing")
    memory = MDNRNN(4, 30, 8, 2, reward=True, mask_size=30)
    assert memory.mask_head is not None
    with torch.no_grad():
        memory.mask_head[2].weight.zero_()
        memory.mask_head[2].bias.copy_(torch.where(allowed, 5.0, -5.0))
    return Agent(task, ConvVAE(4), memory, torch.randn(30 * 13), inputs=("z", "h"), starts=torch.randn(3, 2, 4).half())


def test_controllers_in_dreams_choose_only_what_the_dream_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = torch.zeros(30, dtype=torch.bool)
    allowed[[0, 7, 19]] = True
    agent, chosen = forbidding(allowed), []
    monkeypatch.setattr(
        type(agent.task), "dream_action", lambda task, control: chosen.append(control.argmax(dim=1)) or one_hot(control)
    )
    DreamFitness(LocalExecutor(), agent, 1.0, "sample")(np.random.default_rng(1).standard_normal((5, 390)), range(4), 6)
    assert set(torch.cat(chosen).tolist()) == {0, 7, 19}
    env = DreamVectorEnv(2, agent)
    _, first = env.reset(seed=1)
    *_, info = env.step(np.array([7, 7]))
    for masks in (first["action_mask"], info["action_mask"]):
        assert (masks == allowed.numpy()).all() and masks.shape == (2, 30)
    # Where M believes that nothing is allowed, what it doubts least is.
    nothing = forbidding(torch.zeros(30, dtype=torch.bool))
    assert nothing.memory.mask_head is not None
    with torch.no_grad():
        nothing.memory.mask_head[2].bias[4] += 1
    _, info = DreamVectorEnv(2, nothing).reset(seed=1)
    assert (info["action_mask"].nonzero()[1] == 4).all() and info["action_mask"].sum() == 2


def one_hot(control: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(control.argmax(dim=1), control.shape[1]).float()


def test_m_learns_which_levels_z_allows_and_latents_keep_masks_beside_their_frames(tmp_path: Path) -> None:
    task = get_task("bin-packing")
    store = EpisodeStore(tmp_path / "episodes")
    store.write(0, record_episodes(LocalExecutor(), task, "native", task.exploration, [1, 2, 3], 40))
    shard = Shard(store.shard_path(0))
    with Progress(shard.num_frames, "encode", "frames") as bar:
        latents = encode_shard(ConvVAE(4), task, shard, bar)
    np.testing.assert_array_equal(latents.action_mask, task.action_mask(shard.frames(0, shard.num_frames)))
    save_latents(tmp_path, 0, latents, "V")
    latents = load_latents(tmp_path, 1, "V")
    assert latents.action_mask is not None and latents.action_mask.shape == (123, 30)
    # A z from which the mask can be told: its numbers are those of four levels.
    shown = [1, 9, 16, 23]
    mu = 4 * latents.action_mask[:, shown].half() - 2
    known = dataclasses.replace(latents, mu=mu, logvar=torch.full_like(mu, -9))
    z, _, targets = SequenceSampler(known, 8, 20, seed=1).batch(3)
    assert targets.action_mask is not None and z.shape == (8, 20, 4)
    assert ((targets.z > 0) == (targets.action_mask[..., shown] > 0)).all(), "a mask belongs to the z beside it"
    memory = MDNRNN(4, 30, 16, 2, reward=True, mask_size=30)
    found = train_memory(memory, known, MemoryConfig(steps=150, batch=8, length=20, lr=1e-2), 1, CPU, tmp_path / "m")
    assert set(found) == {"nll", "reward", "mask"} and found["mask"] < 0.35
    told = (memory.mask_logits(mu.float()) > 0)[:, shown]
    assert (told == latents.action_mask[:, shown].bool()).float().mean() > 0.99
    agent = untrained_agent(task, ConvVAE(4), memory, ("z", "h"))
    agent.starts = torch.zeros(1, 2, 4).half()
    agent.save(tmp_path / "agent")
    again = load_agent(tmp_path / "agent").memory
    assert again.mask_head is not None
    np.testing.assert_allclose(again.mask_logits(z).detach(), memory.mask_logits(z).detach(), atol=0.05)


def test_what_bin_packing_cannot_do_is_said() -> None:
    task = get_task("bin-packing")
    agent = untrained_agent(task, ConvVAE(4), MDNRNN(4, 30, 8, 2, reward=True), ("z", "h"))
    agent.starts = torch.zeros(1, 2, 4).half()
    with pytest.raises(UserError, match="need an M that predicts the action mask"):
        DreamVectorEnv(1, agent)
