"""M's output: a separate mixture of K one-dimensional Gaussians for each latent dimension.

Legend: Z latent, K mixtures; "..." is any batch. (Ha & Schmidhuber 2018, appendix A.2; Graves 2013, section 4.)
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

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


def head_log_likelihood(head: nn.Linear, hidden: Tensor, z: Tensor) -> Tensor:
    """Log density (..., Z) of each dimension of z (..., Z), from hidden (..., H) by the mixture head (H to Z*3*K).

    It is :func:`log_likelihood` for training, several times as fast. z gets no gradient.
    """
    latent = z.shape[-1]
    # From (Z, 3*K) to (3*K, Z): every operation on the outputs then works on contiguous rows of Z numbers.
    weight = head.weight.view(latent, -1, head.in_features).transpose(0, 1).flatten(0, 1)
    bias = head.bias.view(latent, -1).t().flatten()
    outputs = functional.linear(hidden, weight, bias).float()
    outputs = outputs.view(*outputs.shape[:-1], 3, -1, latent)
    density: Tensor = _LogLikelihood.apply(outputs, z)  # type: ignore[no-untyped-call]
    return density


class _LogLikelihood(torch.autograd.Function):
    """Log density (..., Z) of z (..., Z) for outputs (..., [logit, mean, log scale], K, Z), with its gradient by hand.

    With weights w = softmax(logits), deviations d = (z - mean) / scale and responsibilities r = softmax over K of the
    components' log densities, the gradient is r - w for logits, r * d / scale for means and r * (d * d - 1) for log
    scales.
    """

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, z: Tensor) -> Tensor:
        logits, means, log_scales = outputs.unbind(-3)
        precision = torch.exp(-log_scales)
        deviation = (z.unsqueeze(-2) - means).mul_(precision)
        logits = logits - logits.amax(dim=-2, keepdim=True)
        joint = torch.addcmul(logits, deviation, deviation, value=-0.5).sub_(log_scales)
        weights = logits.exp_()
        total = weights.sum(dim=-2, keepdim=True)
        highest = joint.amax(dim=-2, keepdim=True)
        responsibilities = joint.sub_(highest).exp_()
        joint_total = responsibilities.sum(dim=-2, keepdim=True)
        ctx.save_for_backward(weights.div_(total), responsibilities.div_(joint_total), deviation, precision)
        return (highest + joint_total.log_() - total.log_()).squeeze(-2) - _HALF_LOG_TWO_PI

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weights, responsibilities, deviation, precision = ctx.saved_tensors
        gradient = gradient.unsqueeze(-2)
        result = torch.empty(*weights.shape[:-2], 3, *weights.shape[-2:], device=weights.device, dtype=weights.dtype)
        of_logits, of_means, of_log_scales = result.unbind(-3)
        share = gradient * responsibilities
        torch.addcmul(share, gradient, weights, value=-1, out=of_logits)
        moved = share * deviation
        torch.mul(moved, precision, out=of_means)
        torch.addcmul(share.neg_(), moved, deviation, out=of_log_scales)
        return result, None


def expectation(mixture: Mixture) -> Tensor:
    """The mean (..., Z) of the mixture."""
    return (mixture.log_weights.exp() * mixture.means).sum(-1)
