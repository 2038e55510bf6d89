"""Agents as ONNX models: they compute what PyTorch computes, for any number of rows, or are not kept."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from dream_agents import dreamer
from worldmodels.core.errors import UserError
from worldmodels.data.exchange import onnx_models
from worldmodels.data.exchange.onnx_models import export_onnx
from worldmodels.memory.mdnrnn import MDNRNN


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_a_memory_with_a_clock_is_told_the_time_and_says_how_likely_a_hit_is(tmp_path: Path) -> None:
    agent = dreamer()
    agent.memory = MDNRNN(6, 3, 16, 3, reward=True, end=True, clock=20, hit=True).eval()
    agent.memory.hit_weight.fill_(7.0)
    export_onnx(agent, tmp_path / "models")
    about = json.loads((tmp_path / "models" / "agent.json").read_text())
    assert about["clock"] == 20 and about["hit_weight"] == 7.0 and about["models"]["memory"]["inputs"]["steps"] == ["N"]
    model, steps = session(tmp_path / "models" / "memory.onnx"), np.array([0, 3, 2000], np.float32)
    z, action = np.ones((3, 6), np.float32), np.zeros((3, 3), np.float32)
    h = c = np.zeros((3, 16), np.float32)
    found = model.run(None, {"z": z, "action": action, "h": h, "c": c, "steps": steps})
    names = [one.name for one in model.get_outputs()]
    with torch.no_grad():
        state = torch.from_numpy(h), torch.from_numpy(c)
        wanted, _ = agent.memory.step(torch.from_numpy(z), torch.from_numpy(action), state, torch.from_numpy(steps))
        hits = agent.memory.heads(wanted).hit_logit
    assert hits is not None and len(np.unique(found[names.index("next_h")], axis=0)) == 3
    np.testing.assert_allclose(found[names.index("next_h")], wanted.numpy(), atol=1e-4)
    np.testing.assert_allclose(found[names.index("hit_logit")], hits.numpy(), atol=1e-4)


@pytest.mark.parametrize("hidden", [0, 5])
def test_an_episode_of_the_models_is_that_of_the_agent(hidden: int, tmp_path: Path) -> None:
    agent, folder = dreamer(hidden=hidden), tmp_path / "models"
    differences = export_onnx(agent, folder)
    assert set(differences) == {"encoder", "decoder", "memory", "controller"} and max(differences.values()) < 1e-4
    about = json.loads((folder / "agent.json").read_text())
    assert about["policy_inputs"] == ["z", "h"] and about["models"]["memory"]["inputs"]["action"] == ["N", 3]
    models = {name: session(folder / f"{name}.onnx") for name in differences}

    rows, rng = 5, np.random.default_rng(1)
    h = c = np.zeros((rows, 16), np.float32)
    state = agent.memory.initial_state(rows)
    for _ in range(3):
        frames = rng.integers(0, 256, (rows, 64, 64, 3), dtype=np.uint8)
        z, _ = models["encoder"].run(None, {"frames": frames})
        with torch.no_grad():
            mu, _ = agent.vision.encode(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255)
            np.testing.assert_allclose(z, mu.numpy(), atol=1e-4)
            (control,) = models["controller"].run(None, {"inputs": np.concatenate([z, h], 1)})
            wanted = agent.controllers(agent.controller[None])(agent.inputs(mu, *state))
            np.testing.assert_allclose(control, wanted.numpy(), atol=1e-4)
            action = agent.task.dream_action(wanted)
            state = agent.memory.step(mu, action, state)
            outputs = models["memory"].run(None, {"z": z, "action": action.numpy(), "h": h, "c": c})
            h, c, log_weights, means, log_scales, reward, end = outputs
            prediction = agent.memory.heads(state[0])
        assert prediction.reward is not None and prediction.end_logit is not None
        pairs = zip((log_weights, means, log_scales), prediction.mixture, strict=True)
        for theirs, mine in (
            *pairs,
            (h, state[0]),
            (c, state[1]),
            (reward, prediction.reward),
            (end, prediction.end_logit),
        ):
            np.testing.assert_allclose(theirs, mine.numpy(), atol=1e-4)
    (images,) = models["decoder"].run(None, {"z": z})
    assert np.abs(np.rint(images * 255) - agent.decode(z)).max() <= 3, "the agent may decode in bfloat16"


def test_models_that_differ_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_models, "_difference", lambda model, path: 0.1)
    with pytest.raises(UserError, match=r"the ONNX model of the encoder differs from PyTorch by 0\.1; not kept"):
        export_onnx(dreamer(), tmp_path / "models")
    assert not (tmp_path / "models").exists() and not any(tmp_path.iterdir())


def test_only_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not an empty folder"):
        export_onnx(dreamer(), tmp_path)
