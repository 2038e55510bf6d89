"""The baselines: straightforward versions of V, M and C with PyTorch's own layers in float32."""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.agent import Agent
from worldmodels.memory.config import MemoryConfig
from worldmodels.memory.mdnrnn import MDNRNN, Targets, memory_loss
from worldmodels.vision.base import Vision
from worldmodels.vision.conv_vae import ConvVAE


class PlainVAE(ConvVAE):
    """The paper's VAE as a sequence of PyTorch's own layers, with the parameters of :class:`ConvVAE`."""

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, each (B, Z), of images (B, 3, 64, 64) in [0, 1]."""
        h = images
        for layer in (self.enc_conv1, self.enc_conv2, self.enc_conv3, self.enc_conv4):
            h = functional.relu(layer(h))
        h = h.permute(0, 2, 3, 1).flatten(1)
        return self.enc_mu(h), self.enc_logvar(h)

    def decode_logits(self, z: Tensor) -> Tensor:
        """Images (B, 3, 64, 64) of z (B, Z), before the sigmoid."""
        h = self.dec_fc(z)[:, :, None, None]
        for layer in (self.dec_deconv1, self.dec_deconv2, self.dec_deconv3):
            h = functional.relu(layer(h))
        return self.dec_deconv4(h)  # type: ignore[no-any-return]


def plain_images(frames: Tensor) -> Tensor:
    """Frames (N, 64, 64, 3) uint8 as images (N, 3, 64, 64) in [0, 1], float32, in PyTorch's default memory layout."""
    return frames.permute(0, 3, 1, 2).contiguous().float() / 255


def plain_vision(vision: Vision) -> Vision:
    """A copy of V on the CPU, with PyTorch's own layers if it is a :class:`ConvVAE`."""
    if not isinstance(vision, ConvVAE):
        return copy.deepcopy(vision).cpu()
    plain = PlainVAE(vision.latent_size)
    plain.load_state_dict({name: value.cpu() for name, value in vision.state_dict().items()})
    return plain


def plain_memory_loss(
    memory: MDNRNN,
    z: Tensor,
    actions: Tensor,
    targets: Targets,
    config: MemoryConfig,
    reward_scale: float,
    device: torch.device,
) -> Tensor:
    """M's training loss for a batch: a call of ``nn.LSTM``, a linear layer for each head, and the mixture's density.

    M's further inputs, the clock and the like, are zeros, which take as long.
    """
    further = z.new_zeros(*z.shape[:2], memory.lstm.input_size - z.shape[2] - actions.shape[2])
    hidden, _ = memory.lstm(torch.cat([z, actions, further], dim=-1).to(device))
    targets = targets.to(device)
    mask_logits = None if memory.mask_head is None else memory.mask_logits(targets.z)
    targets = targets._replace(rewards=targets.rewards / reward_scale)
    return memory_loss(memory.heads(hidden), targets, config.end_weight, mask_logits, config.hit_weight)[0]


class PlainAgent:
    """Acts in one environment, on the CPU, frame by frame: V, a call of ``nn.LSTM``, one or two linear layers."""

    def __init__(self, agent: Agent, controller: Tensor) -> None:
        self._task, self._inputs = agent.task, agent.inputs
        self._vision = plain_vision(agent.vision)
        memory = agent.memory
        self._lstm = nn.LSTM(memory.lstm.input_size, memory.hidden_size, batch_first=True)
        self._restart, self._clock = memory.restart, memory.clock
        self._lstm.load_state_dict({name: value.cpu() for name, value in memory.lstm.state_dict().items()})
        layers = list[nn.Module]()
        for bias, weights in agent.layout.layers(controller):
            layer = nn.Linear(*weights.shape)
            with torch.no_grad():
                layer.weight.copy_(weights.t())
                layer.bias.copy_(bias)
            layers += [layer, nn.Tanh()]
        self._controller = nn.Sequential(*layers)
        self.reset()

    def reset(self) -> None:
        """Set the state of M to zero."""
        self._state = torch.zeros(1, 1, self._lstm.hidden_size), torch.zeros(1, 1, self._lstm.hidden_size)
        self._steps = 0

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> np.ndarray:
        """The action for one raw observation."""
        frame = self._task.frames(observation[None])
        z, _ = self._vision.encode(plain_images(torch.from_numpy(frame)))
        h, c = self._state[0][0], self._state[1][0]
        control = self._controller(self._inputs(z, h, c)).numpy()
        mask = self._task.action_mask(frame) if self._task.masked else None
        action = self._task.env_action(control if mask is None else np.where(mask, control, -np.inf))
        inputs = [z, torch.from_numpy(self._task.memory_action(action))]
        if self._restart:
            inputs.append(torch.tensor([[float(self._steps == 0)]]))
        if self._clock:
            inputs.append(torch.tensor([[self._steps / self._clock]]))
        _, self._state = self._lstm(torch.cat(inputs, dim=-1)[:, None], self._state)
        self._steps += 1
        return np.asarray(action[0])
