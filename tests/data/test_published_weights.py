"""The weights of 2018: the agent computes what the authors' networks compute, and damaged files are refused."""

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import published
from worldmodels.agent import load_agent
from worldmodels.core.errors import UserError
from worldmodels.core.seeds import Stream
from worldmodels.data.exchange.published_files import find_files
from worldmodels.data.exchange.published_weights import published_agent, published_task, published_vision
from worldmodels.dream.dreams import Dreams
from worldmodels.memory.packed import PackedMemory
from worldmodels.vision import base as vision_base

CAR, DOOM = "car-racing", "take-cover"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, list[np.ndarray]]]]:
    folder = tmp_path_factory.mktemp("published")
    return {task: (folder / task, published.random_files(folder / task, task)) for task in (CAR, DOOM)}


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons should not depend on whether this processor likes bfloat16, to which images are rounded otherwise."""
    monkeypatch.setattr(vision_base, "precision", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(vision_base, "rounded_images", lambda frames: vision_base.images_from_frames(frames))


def screens(task: str, count: int) -> np.ndarray:
    shape = published_task(task).observation_shape
    return np.random.default_rng(5).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("task", [CAR, DOOM])
def test_an_agent_sees_thinks_and_acts_like_the_authors_networks_in_float64(
    task: str, folders: Any, tmp_path: Path
) -> None:
    folder, weights = folders[task]
    made, absent = published_agent(folder, published_task(task))
    made.save(tmp_path, torch.float32)
    agent = load_agent(tmp_path)
    assert not absent and agent.samples_z and agent.task.name == f"{task}-published"

    vae, controller = weights["vae"], weights["c"][0]
    kernel, bias = weights["rnn"][:2] if task == DOOM else weights["rnn"][2:]
    latent, hidden, _ = published.SIZES[task]
    h, c = np.zeros(hidden), np.zeros(hidden)
    policy, stream = agent.policy(1, seeds=[77]), np.random.default_rng([77, Stream.ACTING])
    for step, screen in enumerate(screens(task, 3)):
        action = policy.act(screen[None])[0]
        frame = agent.task.frames(screen[None])[0]
        mu, logvar = published.encode(vae, frame / 255)
        z = mu + np.exp(logvar / 2) * stream.standard_normal(latent, np.float32)
        np.testing.assert_allclose(policy.latents[0].numpy(), z, atol=2e-4)
        if task == CAR:
            control = np.tanh(np.concatenate([z, h]) @ controller[3:].reshape(288, 3) + controller[:3])
            wanted = np.array([control[0], (control[1] + 1) / 2, np.clip(control[2], 0, 1)])
            np.testing.assert_allclose(action, wanted, atol=2e-4)
            x = np.concatenate([z, wanted])
        else:
            control = np.tanh(np.concatenate([z, c, h]) @ controller)
            assert action == (1 if control > 0.3333 else 2 if control < -0.3333 else 0)
            x = np.concatenate([z, [control, float(step == 0)]])
        h, c = published.lstm(kernel, bias, x, h, c)
        np.testing.assert_allclose(policy.state[0][0].numpy(), h, atol=2e-4)
        np.testing.assert_allclose(policy.state[1][0].numpy(), c, atol=2e-4)
    image = agent.vision.decode(torch.from_numpy(z[None]).float())[0].detach().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(image, published.decode(vae, z), atol=1e-4)


@pytest.mark.parametrize("task", [CAR, DOOM])
def test_the_mixture_and_the_end_are_read_off_the_authors_columns(task: str, folders: Any) -> None:
    folder, weights = folders[task]
    agent, _ = published_agent(folder, published_task(task))
    latent, hidden, _ = published.SIZES[task]
    weight, offset = weights["rnn"][2:] if task == DOOM else weights["rnn"][:2]
    h = np.random.default_rng(1).uniform(-1, 1, hidden)
    outputs, skip = h @ weight + offset, int(task == DOOM)
    with torch.no_grad():
        prediction = agent.memory.heads(torch.from_numpy(h[None]).float())
    for d, k in ((0, 0), (1, 4), (latent - 1, 2)):
        column = skip + 15 * d + k
        logits = outputs[skip + 15 * d : skip + 15 * d + 5]
        log_weight = logits[k] - np.log(np.exp(logits).sum())
        mixture = prediction.mixture
        assert mixture.log_weights[0, d, k].item() == pytest.approx(log_weight, abs=1e-4)
        assert mixture.means[0, d, k].item() == pytest.approx(outputs[column + 5], abs=1e-4)
        assert mixture.log_scales[0, d, k].item() == pytest.approx(outputs[column + 10], abs=1e-4)
    if task == DOOM:
        assert prediction.end_logit is not None and prediction.end_logit.item() == pytest.approx(outputs[0], abs=1e-4)


def test_the_parts_have_as_many_parameters_as_was_published(folders: Any) -> None:
    counts = {}
    for task in (CAR, DOOM):
        agent, _ = published_agent(folders[task][0], published_task(task))
        vision = sum(one.numel() for one in agent.vision.parameters())
        memory = sum(one.numel() for one in agent.memory.parameters() if one.requires_grad)
        counts[task] = vision, memory, len(agent.controller)
    assert counts == {CAR: (4_348_547, 422_368, 867), DOOM: (4_446_915, 1_678_785, 1_088 + 1)}


def test_m_is_told_where_an_episode_begins_also_in_sequences_and_dreams(folders: Any) -> None:
    agent, _ = published_agent(folders[DOOM][0], published_task(DOOM))
    memory, packed = agent.memory, PackedMemory(agent.memory)
    rng = np.random.default_rng(2)
    z, actions = (torch.from_numpy(rng.normal(size=(2, 4, size))).float() for size in (64, 1))
    state = dream = memory.initial_state(2)
    with torch.no_grad():
        whole = memory(z, actions).mixture.means
        followed = memory.follow(z, actions, torch.tensor([4, 2]))
        for step in range(4):
            state = memory.step(z[:, step], actions[:, step], state)
            dream = packed.step(z[:, step], actions[:, step], dream)
            torch.testing.assert_close(memory.heads(state[0]).mixture.means, whole[:, step], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(dream[0], state[0], atol=1e-5, rtol=1e-4)
            if step == 1:
                torch.testing.assert_close(followed[0][1], state[0][1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(followed[0][0], state[0][0], atol=1e-5, rtol=1e-4)


def test_samples_of_z_depend_on_the_seed_of_the_episode_alone(folders: Any) -> None:
    agent, _ = published_agent(folders[CAR][0], published_task(CAR))
    seen = screens(CAR, 3)
    together, alone = agent.policy(3, seeds=[4, 5, 6]), agent.policy(1, seeds=[5])
    for _ in range(2):
        together.act(seen)
        alone.act(seen[1:2])
    torch.testing.assert_close(together.latents[1], alone.latents[0], atol=1e-4, rtol=1e-4)
    together.begin(np.array([2]), np.array([1]))
    together.act(seen[1:2], np.array([2]))
    first = agent.policy(1, seeds=[5])
    first.act(seen[1:2])
    torch.testing.assert_close(together.latents[2], first.latents[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(first.latents[0], alone.latents[0]), "every step has its own numbers"


@pytest.mark.parametrize("task", [CAR, DOOM])
def test_m_without_c_dreams(task: str, folders: Any, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("vae", "rnn", "initial_z"):
        (folder / f"{name}.json").symlink_to(folders[task][0] / f"{name}.json")
    agent, absent = published_agent(folder, published_task(task))
    assert absent == ["C"] and not agent.controller.any()
    dreams = Dreams(agent, temperature=1.15, termination="threshold")
    dreams.reset([1, 2])
    reward, ended = dreams.step(torch.zeros(2, agent.task.action_size))
    assert dreams.z.isfinite().all() and ended.shape == (2,)
    assert reward.tolist() == ([1.0, 1.0] if task == DOOM else [0.0, 0.0])


def test_the_files_may_lie_as_in_the_authors_repository_and_a_zoo_of_controllers_is_asked_about(
    folders: Any, tmp_path: Path
) -> None:
    for place, name in (("vae", "vae.json"), ("rnn", "rnn.json"), ("log", "carracing.cma.16.64.best.json")):
        (tmp_path / place).mkdir()
        (tmp_path / place / name).symlink_to(folders[CAR][0] / name)
    (tmp_path / "log" / "carracing.cma.16.64.hist.json").write_text("[[1]]")
    agent, absent = published_agent(tmp_path, published_task(CAR))
    assert absent == ["start states"] and agent.controller.any()
    (tmp_path / "log" / "other.best.json").write_text("[[1]]")
    with pytest.raises(UserError, match=r"name one with --controller"):
        published_agent(tmp_path, published_task(CAR))
    assert published_vision(find_files(tmp_path).vae, published_task(CAR)).latent_size == 32, "V needs none of them"
    with pytest.raises(UserError, match=r"no rnn\.json"):
        published_agent(_only(folders, tmp_path / "v", "vae"), published_task(CAR))


def _only(folders: Any, folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.json").symlink_to(folders[CAR][0] / f"{name}.json")
    return folder


def test_m_of_the_web_page_is_that_of_the_json_file(folders: Any, tmp_path: Path) -> None:
    source, weights = folders[CAR]
    texts = [base64.b64encode(np.round(10_000 * array).astype("<i2").tobytes()).decode() for array in weights["rnn"]]
    folder = _only(folders, tmp_path / "web", "vae")
    (folder / "carrnn.min.js").write_text(f"var rnn={json.dumps(texts)};")
    web, _ = published_agent(folder, published_task(CAR))
    plain, _ = published_agent(source, published_task(CAR))
    for mine, theirs in zip(web.memory.parameters(), plain.memory.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


DAMAGE: list[tuple[str, Callable[[list[Any]], Any], str]] = [
    ("rnn", lambda arrays: [], "empty, as files of a known fault"),
    ("rnn", lambda arrays: arrays[:3], "holds 3 arrays, expected 4"),
    ("rnn", lambda arrays: {"a": 1}, "holds no list"),
    ("rnn", lambda arrays: [arrays[1], *arrays[1:]], r"has the shape \(480,\), expected \(256, 480\)"),
    ("rnn", lambda arrays: [*arrays[:3], [float("nan")] * 1024], "overflow"),
    ("rnn", lambda arrays: [*arrays[:3], [10**30] * 1024], "no array of moderate numbers"),
    ("rnn", lambda arrays: [*arrays[:3], [-(2**63)] * 1024], "overflow"),
    ("rnn", lambda arrays: [*arrays[:3], ["1"] * 1024], "no array of moderate numbers"),
    ("rnn", lambda arrays: [*arrays[:3], [[1], [1, 2]]], "no array of numbers"),
    ("initial_z", lambda arrays: [[[-(2**63)] * 32] * 3] * 2, "overflow"),
    ("initial_z", lambda arrays: [arrays[0], [[900_000] * 32] * 7], "no encoding of a frame"),
    ("initial_z", lambda arrays: [arrays[0], arrays[1][:2]], r"expected \(S, 32\) for both"),
    ("initial_z", lambda arrays: [1], "holds 1 lists"),
    ("carracing.cma.16.64.best", lambda arrays: [[1.0] * 7, 3], "holds 7 parameters of C, expected 867"),
    ("carracing.cma.16.64.best", lambda arrays: [], "no array of moderate numbers"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGE)
def test_damaged_files_are_refused_in_one_line(
    name: str, damage: Callable[[list[Any]], Any], words: str, folders: Any, tmp_path: Path
) -> None:
    for path in folders[CAR][0].iterdir():
        (tmp_path / path.name).symlink_to(path)
    path = tmp_path / f"{name}.json"
    content = damage(json.loads(path.read_text()))
    path.unlink()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as refused:
        published_agent(tmp_path, published_task(CAR))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[1", "[" * 100_000, "\x00", "[1e999999]", "9" * 5000])
def test_what_is_no_json_is_refused_in_one_line(text: str, folders: Any, tmp_path: Path) -> None:
    folder = _only(folders, tmp_path / "bad", "vae")
    (folder / "rnn.json").write_text(text)
    with pytest.raises(UserError, match=r"rnn\.json") as refused:
        published_agent(folder, published_task(CAR))
    assert "\n" not in str(refused.value)


def test_other_tasks_and_missing_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights were published for bin-packing; expected"):
        published_task("bin-packing")
    with pytest.raises(UserError, match=r"no vae\.json in"):
        published_agent(tmp_path, published_task(CAR))
    with pytest.raises(UserError, match="is not a folder"):
        published_agent(tmp_path / "nowhere", published_task(CAR))
