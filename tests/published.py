"""Synthetic files in the layouts of the weights of 2018, and the authors' networks in NumPy, in float64.

The networks are written from their published description and share no code with the package.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {"car-racing": (32, 256, 3), "take-cover": (64, 512, 2)}
"""Numbers in z, in h, and in what M gets beside z: the action, and for Doom the restart."""


def random_files(folder: Path, task: str = "car-racing", seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Write vae.json, rnn.json, initial_z.json and a controller; returns the weights as floats."""
    latent, hidden, beside = SIZES[task]
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        spread = 1 / np.sqrt(np.prod(shape[:-1])) if len(shape) > 1 else 0.05
        return np.round(10_000 * rng.normal(0, spread, shape))

    vae = []
    for side, inside, outside in ((4, 3, 32), (4, 32, 64), (4, 64, 128), (4, 128, 256)):
        vae += [weights(side, side, inside, outside), weights(outside)]
    for inside, outside in ((1024, latent), (1024, latent), (latent, 1024)):
        vae += [weights(inside, outside), weights(outside)]
    for side, outside, inside in ((5, 128, 1024), (5, 64, 128), (6, 32, 64), (6, 3, 32)):
        vae += [weights(side, side, outside, inside), weights(outside)]
    extra = int(task == "take-cover")
    head = [weights(hidden, 15 * latent + extra), weights(15 * latent + extra)]
    cell = [weights(latent + beside + hidden, 4 * hidden), weights(4 * hidden)]
    rnn = cell + head if extra else head + cell
    starts = [np.round(10_000 * rng.normal(0, 0.5, (7, latent))) for _ in range(2)]
    count = 1088 if extra else 867
    controller = np.round(rng.normal(0, 0.3, count), 4)
    folder.mkdir(parents=True, exist_ok=True)
    for name, arrays in (("vae", vae), ("rnn", rnn), ("initial_z", starts)):
        (folder / f"{name}.json").write_text(json.dumps([array.astype(int).tolist() for array in arrays]))
    best: Any = [controller.tolist(), 900.46]
    (folder / f"{task.replace('-', '')}.cma.16.64.best.json").write_text(json.dumps(best))
    scaled = {"vae": vae, "rnn": rnn, "initial_z": starts}
    return {name: [array / 10_000 for array in arrays] for name, arrays in scaled.items()} | {"c": [controller]}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def convolution(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """VALID, stride 2: x (H, W, in), kernel (k, k, in, out)."""
    side, size = kernel.shape[0], (x.shape[0] - kernel.shape[0]) // 2 + 1
    y = np.zeros((size, size, kernel.shape[3]))
    for row in range(size):
        for column in range(size):
            patch = x[2 * row : 2 * row + side, 2 * column : 2 * column + side]
            y[row, column] = np.tensordot(patch, kernel, 3)
    return y + bias


def transposed(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """VALID, stride 2: x (H, W, in), kernel (k, k, out, in); every input adds its kernel to the output."""
    side, size = kernel.shape[0], 2 * (x.shape[0] - 1) + kernel.shape[0]
    y = np.zeros((size, size, kernel.shape[2]))
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            y[2 * row : 2 * row + side, 2 * column : 2 * column + side] += kernel @ x[row, column]
    return y + bias


def encode(vae: list[np.ndarray], image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu and logvar of an image (64, 64, 3) from 0 to 1."""
    h = image
    for layer in range(4):
        h = np.maximum(convolution(h, vae[2 * layer], vae[2 * layer + 1]), 0)
    flat = h.reshape(-1)
    return flat @ vae[8] + vae[9], flat @ vae[10] + vae[11]


def decode(vae: list[np.ndarray], z: np.ndarray) -> np.ndarray:
    """The image (64, 64, 3) of z; the dense layer has no ReLU."""
    h = (z @ vae[12] + vae[13]).reshape(1, 1, 1024)
    for layer in range(7, 10):
        h = np.maximum(transposed(h, vae[2 * layer], vae[2 * layer + 1]), 0)
    return sigmoid(transposed(h, vae[20], vae[21]))


def lstm(kernel: np.ndarray, bias: np.ndarray, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    """One step of TensorFlow's cell: gates in the order i, j, f, o, and 1 added to f."""
    i, j, f, o = np.split(np.concatenate([x, h]) @ kernel + bias, 4)
    c = c * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
    return np.tanh(c) * sigmoid(o), c
