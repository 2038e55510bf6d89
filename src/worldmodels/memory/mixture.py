"""M's output: a separate mixture of K one-dimensional Gaussians for each latent dimension.

Legend: Z latent, K mixtures; "..." is any batch. (Ha & Schmidhuber 2018, appendix A.2; Graves 2013, section 4.)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Mixture(NamedTuple):
    """log_weights (..., Z, K) normalised over K, means (..., Z, K), log_scales (..., Z, K)."""

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor


def mixture_from(outputs: Tensor, latent_size: int) -> Mixture:
    """Split a linear layer's outputs (..., Z*3*K) into a :class:`Mixture`, in float32 and normalised."""
    logits, means, log_scales = outputs.float().reshape(*outputs.shape[:-1], latent_size, 3, -1).unbind(-2)
    return Mixture(torch.log_softmax(logits, dim=-1), means, log_scales)


def log_likelihood(mixture: Mixture, z: Tensor) -> Tensor:
    """Log density (..., Z) of each dimension of z (..., Z)."""
    scaled = (z.unsqueeze(-1) - mixture.means) * torch.exp(-mixture.log_scales)
    return torch.logsumexp(mixture.log_weights - 0.5 * scaled.square() - mixture.log_scales - _HALF_LOG_TWO_PI, dim=-1)


def expectation(mixture: Mixture) -> Tensor:
    """The mean (..., Z) of the mixture."""
    return (mixture.log_weights.exp() * mixture.means).sum(-1)
