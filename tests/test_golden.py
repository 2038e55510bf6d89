"""V, M, C and a dream against the paper's formulas, written down once more in NumPy and float64.

The reference below uses nothing of the package and nothing of PyTorch. All numbers come from NumPy's legacy generator,
whose streams never change, so that some results can stand here as literals.
"""

import numpy as np
import pytest
import torch
from torch import nn

from worldmodels.agent import Agent
from worldmodels.controller.linear import LinearControllers
from worldmodels.dream.dreams import Dreams
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.mixture import log_likelihood, mixture_from
from worldmodels.memory.packed import PackedMemory
from worldmodels.tasks import get_task
from worldmodels.vision.base import images_from_frames
from worldmodels.vision.conv_vae import ConvVAE

Z, A, H, K, C, N = 8, 3, 16, 2, 3, 4
"""Latent, action, hidden, mixtures, controls, rows."""
TEMPERATURE, END_WEIGHT = 1.3, 10.0
TOLERANCE = 1e-4

Weights = dict[str, np.ndarray]

VISION_SHAPES = {
    "enc_conv1.weight": (32, 3, 4, 4), "enc_conv1.bias": (32,),
    "enc_conv2.weight": (64, 32, 4, 4), "enc_conv2.bias": (64,),
    "enc_conv3.weight": (128, 64, 4, 4), "enc_conv3.bias": (128,),
    "enc_conv4.weight": (256, 128, 4, 4), "enc_conv4.bias": (256,),
    "enc_mu.weight": (Z, 1024), "enc_mu.bias": (Z,),
    "enc_logvar.weight": (Z, 1024), "enc_logvar.bias": (Z,),
    "dec_fc.weight": (1024, Z), "dec_fc.bias": (1024,),
    "dec_deconv1.weight": (1024, 128, 5, 5), "dec_deconv1.bias": (128,),
    "dec_deconv2.weight": (128, 64, 5, 5), "dec_deconv2.bias": (64,),
    "dec_deconv3.weight": (64, 32, 6, 6), "dec_deconv3.bias": (32,),
    "dec_deconv4.weight": (32, 3, 6, 6), "dec_deconv4.bias": (3,),
}  # fmt: skip
MEMORY_SHAPES = {
    "lstm.weight_ih_l0": (4 * H, Z + A), "lstm.weight_hh_l0": (4 * H, H), "lstm.bias_ih_l0": (4 * H,),
    "mixture_head.weight": (3 * Z * K, H), "mixture_head.bias": (3 * Z * K,),
    "reward_head.weight": (1, H), "reward_head.bias": (1,),
    "end_head.weight": (1, H), "end_head.bias": (1,),
}  # fmt: skip


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal numbers that are exact in float32, as float64."""
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


def uniform(seed: int, *shape: int) -> np.ndarray:
    """Numbers in [0, 1) that are exact in float32, as float64."""
    return np.random.RandomState(seed).randint(0, 1 << 24, shape) / (1 << 24)


def weights(shapes: dict[str, tuple[int, ...]], seed: int) -> Weights:
    """Weights of about the size that keeps activations about as large as inputs; biases are smaller."""
    drawn = {}
    for index, (name, shape) in enumerate(shapes.items()):
        transposed = "deconv" in name and len(shape) > 1
        inputs = shape[0] * 4 if transposed else int(np.prod(shape[1:]))
        scale = np.float32(0.1 if len(shape) == 1 else 1.5 / np.sqrt(inputs))
        drawn[name] = (normal(seed + index, *shape).astype(np.float32) * scale).astype(np.float64)
    return drawn


def fill(module: nn.Module, values: Weights, **others: float) -> None:
    """Load all weights by name; ``others`` are the numbers that fill what is left."""
    tensors = {name: torch.from_numpy(value).float() for name, value in values.items()}
    for name, number in others.items():
        key = name.replace("__", ".")
        tensors[key] = torch.full_like(module.state_dict()[key], number)
    module.load_state_dict(tensors)


# --- the reference --------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (I, n, n) by weight (O, I, k, k), unpadded with stride 2: (O, m, m)."""
    size = weight.shape[2]
    out = (x.shape[1] - size) // 2 + 1
    y = np.zeros((len(weight), out, out)) + bias[:, None, None]
    for row in range(size):
        for column in range(size):
            seen = x[:, row : row + 2 * out : 2, column : column + 2 * out : 2]
            y += np.tensordot(weight[:, :, row, column], seen, axes=1)
    return y


def transposed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """x (I, n, n) by weight (I, O, k, k), each pixel spread over a k x k patch, patches 2 apart: (O, m, m)."""
    size, n = weight.shape[2], x.shape[1]
    out = 2 * (n - 1) + size
    y = np.zeros((weight.shape[1], out, out)) + bias[:, None, None]
    for row in range(size):
        for column in range(size):
            spread = np.tensordot(weight[:, :, row, column].T, x, axes=1)
            y[:, row : row + 2 * n : 2, column : column + 2 * n : 2] += spread
    return y


def encoder(frame: np.ndarray, w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """mu (Z,) and logvar (Z,) of a frame (64, 64, 3) uint8."""
    x = frame.transpose(2, 0, 1) / 255
    for layer in ("enc_conv1", "enc_conv2", "enc_conv3", "enc_conv4"):
        x = np.maximum(convolution(x, w[f"{layer}.weight"], w[f"{layer}.bias"]), 0)
    flat = np.array([x[channel, row, column] for row in range(2) for column in range(2) for channel in range(256)])
    mu, logvar = (w[f"{head}.weight"] @ flat + w[f"{head}.bias"] for head in ("enc_mu", "enc_logvar"))
    return mu, logvar


def decoder(z: np.ndarray, w: Weights) -> np.ndarray:
    """The image (3, 64, 64) of z (Z,)."""
    x = (w["dec_fc.weight"] @ z + w["dec_fc.bias"])[:, None, None]
    for layer in ("dec_deconv1", "dec_deconv2", "dec_deconv3"):
        x = np.maximum(transposed(x, w[f"{layer}.weight"], w[f"{layer}.bias"]), 0)
    return sigmoid(transposed(x, w["dec_deconv4.weight"], w["dec_deconv4.bias"]))


def lstm(z: np.ndarray, action: np.ndarray, h: np.ndarray, c: np.ndarray, w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """h (H,) and c (H,) after z (Z,) and action (A,)."""
    inputs = np.concatenate([z, action])
    gates = w["lstm.weight_ih_l0"] @ inputs + w["lstm.weight_hh_l0"] @ h + w["lstm.bias_ih_l0"]
    i, f, g, o = gates[:H], gates[H : 2 * H], gates[2 * H : 3 * H], gates[3 * H :]
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def mixture(h: np.ndarray, w: Weights) -> np.ndarray:
    """(Z, 3, K): logits, means and logarithms of scales."""
    return (w["mixture_head.weight"] @ h + w["mixture_head.bias"]).reshape(Z, 3, K)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def log_density(z: np.ndarray, h: np.ndarray, w: Weights) -> np.ndarray:
    """Log density of each number of z (Z,)."""
    logits, means, log_scales = mixture(h, w).transpose(1, 0, 2)
    scales = np.exp(log_scales)
    bells = np.exp(-(((z[:, None] - means) / scales) ** 2) / 2) / (scales * np.sqrt(2 * np.pi))
    return np.log((softmax(logits) * bells).sum(axis=-1))


def draw(h: np.ndarray, chosen_by: np.ndarray, noise: np.ndarray, w: Weights) -> np.ndarray:
    """z (Z,): the component in whose part of [0, 1) the uniform number falls, then its mean and scaled noise."""
    z = np.zeros(Z)
    for d, (logits, means, log_scales) in enumerate(mixture(h, w)):
        upper = np.cumsum(softmax(logits / TEMPERATURE))
        assert np.abs(upper[:-1] - chosen_by[d]).min() > 1e-3, "rounding could change the choice"
        k = int((chosen_by[d] >= upper[:-1]).sum())
        z[d] = means[k] + np.exp(log_scales[k]) * np.sqrt(TEMPERATURE) * noise[d]
    return z


def reward_and_end(h: np.ndarray, w: Weights) -> tuple[float, float]:
    """The reward, and the probability of an end, whose odds the head holds to be END_WEIGHT times as high."""
    reward, logit = ((w[f"{head}_head.weight"] @ h + w[f"{head}_head.bias"]).item() for head in ("reward", "end"))
    odds = np.exp(logit) / END_WEIGHT
    return reward, odds / (1 + odds)


def controls(parameters: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """(C,) of what C sees (F,): biases first, then the weights of each input in turn."""
    out = parameters[:C].copy()
    for index, value in enumerate(inputs):
        out += value * parameters[C + C * index : C + C * (index + 1)]
    return np.tanh(out)


# --- both on the same numbers ---------------------------------------------------------------------------------

V, M = weights(VISION_SHAPES, 100), weights(MEMORY_SHAPES, 200)
FRAMES = np.random.RandomState(1).randint(0, 256, (2, 64, 64, 3)).astype(np.uint8)
LATENTS, ACTIONS = normal(2, N, Z), np.tanh(normal(3, N, A)).astype(np.float32).astype(np.float64)
HIDDEN, CELL = np.tanh(normal(4, N, H)).astype(np.float32).astype(np.float64), normal(5, N, H)
NEXT = normal(6, N, Z)
UNIFORM, NOISE, CHANCE = uniform(7, N, Z), normal(8, N, Z), np.array([0.01, 0.9, 0.05, 0.3])
PARAMETERS = 0.5 * normal(9, C * (Z + H + 1))


@pytest.fixture(scope="module")
def vision() -> ConvVAE:
    model = ConvVAE(Z)
    fill(model, V)
    return model


@pytest.fixture(scope="module")
def memory() -> MDNRNN:
    model = MDNRNN(Z, A, H, K, reward=True, end=True)
    fill(model, M, lstm__bias_hh_l0=0.0, end_weight=END_WEIGHT)
    return model


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values)).float()


def assert_close(found: torch.Tensor, wanted: np.ndarray | list[np.ndarray]) -> None:
    np.testing.assert_allclose(found.detach().double().numpy(), np.asarray(wanted), rtol=0, atol=TOLERANCE)


def states() -> list[tuple[np.ndarray, np.ndarray]]:
    """h and c of every row after one step."""
    return [lstm(*row, M) for row in zip(LATENTS, ACTIONS, HIDDEN, CELL, strict=True)]


def test_the_encoder_is_four_convolutions_and_two_linear_heads(vision: ConvVAE) -> None:
    mu, logvar = vision.encode(images_from_frames(torch.from_numpy(FRAMES)))
    wanted = [encoder(frame, V) for frame in FRAMES]
    assert_close(mu, [one[0] for one in wanted])
    assert_close(logvar, [one[1] for one in wanted])


def test_the_decoder_is_four_transposed_convolutions(vision: ConvVAE) -> None:
    assert_close(vision.decode(tensor(LATENTS[:2])), [decoder(z, V) for z in LATENTS[:2]])


def test_a_step_of_m_is_the_lstms(memory: MDNRNN) -> None:
    wanted = states()
    arguments = tensor(LATENTS), tensor(ACTIONS), (tensor(HIDDEN), tensor(CELL))
    for h, c in (memory.step(*arguments), PackedMemory(memory).step(*arguments)):
        assert_close(h, [one[0] for one in wanted])
        assert_close(c, [one[1] for one in wanted])


def test_a_whole_sequence_gives_the_predictions_of_step_after_step(memory: MDNRNN) -> None:
    h, c = np.zeros(H), np.zeros(H)
    densities, rewards = [], []
    for z, action, following in zip(LATENTS, ACTIONS, NEXT, strict=True):
        h, c = lstm(z, action, h, c, M)
        densities.append(log_density(following, h, M))
        rewards.append(reward_and_end(h, M)[0])
    prediction = memory(tensor(LATENTS)[None], tensor(ACTIONS)[None])
    assert_close(log_likelihood(prediction.mixture, tensor(NEXT)[None])[0], densities)
    assert_close(prediction.reward[0], np.array(rewards))


def test_the_likelihood_of_the_next_latent_is_the_mixtures(memory: MDNRNN) -> None:
    hidden = [h for h, _ in states()]
    outputs = memory.mixture_head(tensor(np.array(hidden)))
    found = log_likelihood(mixture_from(outputs, Z), tensor(NEXT))
    assert_close(found, [log_density(z, h, M) for z, h in zip(NEXT, hidden, strict=True)])


def test_a_drawn_latent_is_that_of_the_given_random_numbers(memory: MDNRNN) -> None:
    hidden = [h for h, _ in states()]
    drawn = PackedMemory(memory).draw(tensor(np.array(hidden)), tensor(UNIFORM), tensor(NOISE), TEMPERATURE)
    assert_close(drawn.z, [draw(*row, M) for row in zip(hidden, UNIFORM, NOISE, strict=True)])
    rewards, ends = np.array([reward_and_end(h, M) for h in hidden]).T
    assert drawn.reward is not None and drawn.end_logit is not None
    assert_close(drawn.reward, rewards)
    assert_close(torch.sigmoid(memory.unweighted_end_logit(drawn.end_logit)), ends)
    heads = memory.heads(tensor(np.array(hidden)))
    assert heads.reward is not None and heads.end_logit is not None
    assert_close(heads.reward, rewards)
    assert_close(torch.sigmoid(memory.unweighted_end_logit(heads.end_logit)), ends)


def test_a_controller_is_a_linear_map_and_a_tanh() -> None:
    inputs = np.concatenate([LATENTS, HIDDEN], axis=1)
    found = LinearControllers(tensor(PARAMETERS)[None], Z + H, C)(tensor(inputs))
    assert_close(found, [controls(PARAMETERS, one) for one in inputs])


def test_a_step_of_a_dream_is_all_of_these(vision: ConvVAE, memory: MDNRNN) -> None:
    starts = torch.zeros(1, 2, Z).half()
    agent = Agent(get_task("car-racing"), vision, memory, tensor(PARAMETERS), ("z", "h"), starts=starts)
    dreams = Dreams(agent, TEMPERATURE, dtype=torch.float32)
    now = tensor(LATENTS), tensor(HIDDEN), tensor(CELL)
    numbers = tensor(UNIFORM), tensor(NOISE), tensor(CHANCE)
    (z, h, c), reward, ended = dreams.advance(now, tensor(ACTIONS), numbers)
    wanted = states()
    assert_close(h, [one[0] for one in wanted])
    assert_close(c, [one[1] for one in wanted])
    hidden = [one[0] for one in wanted]
    assert_close(z, [draw(*row, M) for row in zip(hidden, UNIFORM, NOISE, strict=True)])
    rewards, ends = np.array([reward_and_end(one, M) for one in hidden]).T
    assert_close(reward, rewards)
    assert ended.tolist() == (ends > CHANCE).tolist()
    assert len(set(ended.tolist())) == 2 and np.abs(CHANCE - ends).min() > 1e-3
    assert_close(dreams.inputs((z, h, c)), np.concatenate([z.numpy(), h.numpy()], axis=1))


def test_the_reference_itself_still_gives_the_numbers_that_it_gave_at_first() -> None:
    mu, logvar = encoder(FRAMES[0], V)
    image = decoder(LATENTS[0], V)
    h, c = states()[0]
    found = {
        "mu": mu[:4],
        "logvar": logvar[:4],
        "corner": image[:, 0, 0],
        "middle": image[:, 31, 40],
        "h": h[:4],
        "c": c[:4],
        "density": log_density(NEXT[0], h, M)[:4],
        "drawn": draw(h, UNIFORM[0], NOISE[0], M)[:4],
        "reward and end": reward_and_end(h, M),
        "controls": controls(PARAMETERS, np.concatenate([LATENTS[0], HIDDEN[0]])),
    }
    wanted = {
        "mu": [-0.31187, 0.04672, 1.40514, -0.06558],
        "logvar": [0.86036, 0.6131, 2.44616, 0.23396],
        "corner": [0.4742, 0.54619, 0.48457],
        "middle": [0.17509, 0.72201, 0.00192],
        "h": [0.18599, -0.38763, 0.89444, 0.03172],
        "c": [0.37145, -1.00807, 2.13665, 0.72871],
        "density": [-1.20327, -2.27589, -1.11189, -2.04397],
        "drawn": [0.23193, 3.82199, -2.18498, 0.02224],
        "reward and end": [0.18909, 0.11397],
        "controls": [0.59806, -0.26783, -0.70431],
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=6e-6, err_msg=name)
