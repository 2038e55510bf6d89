"""The weights that Ha and Schmidhuber published with "World Models" (2018) as parts of an agent.

Their networks are those of this package but for the layout: TensorFlow stores kernels as (height, width, in, out) or,
for transposed convolutions, (height, width, out, in), products as (in, out), and an LSTM's gates in the order input,
candidate, forget, output; 1 is added to the forget gate when it runs. Their agents act on samples of z, on frames that
a special pipeline makes (``tasks/published_frames.py``), and for Doom, M is told where an episode begins.

Legend: Z latent, H hidden, K mixtures, A action.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldmodels.agent import Agent
from worldmodels.controller.inputs import PolicyInputs
from worldmodels.controller.linear import parameter_count
from worldmodels.core.errors import UserError
from worldmodels.data.exchange.published_files import (
    SCALE,
    find_controller,
    find_files,
    numbers,
    read_list,
    read_weights,
)
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.tasks import Task, get_task
from worldmodels.vision.base import make_vision
from worldmodels.vision.conv_vae import ConvVAE

MIXTURES = 5
_GATES = (0, 2, 1, 3)
"""Where torch's gates (input, forget, candidate, output) are among those of TensorFlow."""
_END_WEIGHT = 10.0
"""Weight of ends in the loss of the authors' M for Doom."""
_LARGEST_LOGVAR = 20.0


@dataclass(frozen=True)
class _Sizes:
    """Numbers in z, in h and in an action; whether M is told where an episode begins and predicts its end (Doom)."""

    latent: int
    hidden: int
    action: int
    restart: bool


_SIZES = {
    "car-racing-published": _Sizes(latent=32, hidden=256, action=3, restart=False),
    "take-cover-published": _Sizes(latent=64, hidden=512, action=1, restart=True),
}


def published_task(name: str) -> Task:
    """The variant of the task ``name`` whose frames are those of the published weights; UserError for other tasks."""
    full = name if name in _SIZES else f"{name}-published"
    if full not in _SIZES:
        known = ", ".join(name.removesuffix("-published") for name in _SIZES)
        raise UserError(f"no weights were published for {name}; expected {known}")
    return get_task(full)


def published_agent(folder: Path, task: Task, controller: Path | None = None) -> tuple[Agent, list[str]]:
    """The agent whose weights are in ``folder``, and what it lacks: "C" or "start states".

    A missing C is all zeros; without M's file there is no agent, and it is a :class:`UserError`, like damaged files.
    """
    files, controller = find_files(folder), controller or find_controller(folder)
    if files.rnn is None:
        raise UserError(
            f"no rnn.json in {folder}: an agent needs M, too; to train M and C on this V, give a run of {task.name} "
            "that has episodes with --run in place of --out"
        )
    sizes = _SIZES[task.name]
    inputs = PolicyInputs(task.inputs, sizes.latent, sizes.hidden)
    # Small files first, so that what is wrong with them is said at once.
    parameters = torch.zeros(parameter_count(inputs.size, task.control_size))
    if controller is not None:
        parameters = _controller(controller, len(parameters), task.control_size)
    starts = None if files.initial_z is None else _starts(files.initial_z, sizes.latent)
    memory, vision = _memory(files.rnn, sizes), published_vision(files.vae, task)
    there = [path.name for path in (files.vae, files.rnn, files.initial_z, controller) if path is not None]
    info = {"origin": "weights published with World Models (2018)", "files": there}
    agent = Agent(task, vision, memory, parameters, info=info, starts=starts, samples_z=True)
    absent = {"C": controller, "start states": files.initial_z}
    return agent, [name for name, path in absent.items() if path is None]


def published_vision(path: Path, task: Task) -> ConvVAE:
    """V from ``vae.json``."""
    size = _SIZES[task.name].latent
    vision = make_vision("conv-vae", size)
    assert isinstance(vision, ConvVAE)
    convolutions = [
        ("enc_conv1", 4, 3, 32),
        ("enc_conv2", 4, 32, 64),
        ("enc_conv3", 4, 64, 128),
        ("enc_conv4", 4, 128, 256),
    ]
    products = [("enc_mu", 1024, size), ("enc_logvar", 1024, size), ("dec_fc", size, 1024)]
    transposed = [
        ("dec_deconv1", 5, 1024, 128),
        ("dec_deconv2", 5, 128, 64),
        ("dec_deconv3", 6, 64, 32),
        ("dec_deconv4", 6, 32, 3),
    ]
    shapes: list[tuple[int, ...] | None] = []
    for _, side, inside, outside in convolutions:
        shapes += [(side, side, inside, outside), (outside,)]
    for _, inside, outside in products:
        shapes += [(inside, outside), (outside,)]
    for _, side, inside, outside in transposed:
        shapes += [(side, side, outside, inside), (outside,)]
    arrays = iter(read_weights(path, shapes))
    state = {}
    # The encoder of this package flattens in the authors' order, row, column, channel, so that no row is moved.
    for name in (layer[0] for layer in (*convolutions, *products, *transposed)):
        kernel = next(arrays)
        state[f"{name}.weight"] = _tensor(kernel.transpose((3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)))
        state[f"{name}.bias"] = _tensor(next(arrays))
    vision.load_state_dict(state)
    return vision.eval()


def _memory(path: Path, sizes: _Sizes) -> MDNRNN:
    """M from ``rnn.json``."""
    inputs, hidden = sizes.latent + sizes.action + sizes.restart, sizes.hidden
    outputs = 3 * MIXTURES * sizes.latent + sizes.restart
    cell: list[tuple[int, ...] | None] = [(inputs + hidden, 4 * hidden), (4 * hidden,)]
    head: list[tuple[int, ...] | None] = [(hidden, outputs), (outputs,)]
    if sizes.restart:
        kernel, bias, weight, offset = read_weights(path, cell + head)
    else:
        weight, offset, kernel, bias = read_weights(path, head + cell)
    kernel = np.concatenate([np.split(kernel, 4, axis=1)[gate] for gate in _GATES], axis=1)
    bias = np.concatenate([np.split(bias, 4)[gate] for gate in _GATES])
    bias[hidden : 2 * hidden] += 1.0  # the forget gate's, which TensorFlow adds when it runs
    memory = MDNRNN(sizes.latent, sizes.action, hidden, MIXTURES, end=sizes.restart, restart=sizes.restart)
    with torch.no_grad():
        from_inputs, from_state, first, second = memory.lstm.parameters()
        from_inputs.copy_(_tensor(kernel[:inputs].T))
        from_state.copy_(_tensor(kernel[inputs:].T))
        first.copy_(_tensor(bias))
        second.zero_()
        skip = int(sizes.restart)  # the first output is the logit of the end
        memory.mixture_head.weight.copy_(_tensor(weight[:, skip:].T))
        memory.mixture_head.bias.copy_(_tensor(offset[skip:]))
        if memory.end_head is not None:
            memory.end_head.weight.copy_(_tensor(weight[:, :1].T))
            memory.end_head.bias.copy_(_tensor(offset[:1]))
            memory.end_weight.fill_(_END_WEIGHT)
    return memory.eval()


def _controller(path: Path, count: int, biases: int) -> Tensor:
    """C from a file [parameters, score] or [parameters]: biases first, which Doom's file leaves out."""
    content = read_list(path)
    parameters = numbers(path, content[0] if content else [], "the first entry").reshape(-1)
    if len(parameters) == count - biases:
        parameters = np.concatenate([np.zeros(biases), parameters])
    if len(parameters) != count:
        raise UserError(
            f"{path} holds {len(parameters):,} parameters of C, expected {count:,}; give its file with --controller"
        )
    return _tensor(parameters)


def _starts(path: Path, latent: int) -> Tensor:
    """mu and logvar (S, 2, Z) float16 of the frames at which dreams start, from ``initial_z.json``."""
    content = read_list(path)
    if len(content) != 2:
        raise UserError(f"{path} holds {len(content)} lists, expected those of mu and of logvar; get the file again")
    mu, logvar = (numbers(path, part, name) / SCALE for part, name in zip(content, ("mu", "logvar"), strict=True))
    if mu.ndim != 2 or mu.shape != logvar.shape or mu.shape[1] != latent:
        raise UserError(f"{path} holds mu {mu.shape} and logvar {logvar.shape}, expected (S, {latent}) for both")
    if logvar.max() > _LARGEST_LOGVAR:
        raise UserError(
            f"{path} holds a logvar of {logvar.max():g}, which is no encoding of a frame; get the file again"
        )
    return _tensor(np.stack([mu, logvar], axis=1)).half()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
