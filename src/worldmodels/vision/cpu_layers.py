"""The autoencoder's layers, rearranged so that a CPU runs them near the speed of its matrix product.

Every function here computes what `torch.nn.Conv2d` or `torch.nn.ConvTranspose2d` (stride 2, no padding)
computes, with the same weights, up to rounding; only the order of the work differs. Each of the three
products of a layer (forward, gradient of its input, gradient of its weight) takes the form that was fastest
when measured with oneDNN 3.12 on a Zen 4 CPU (AVX-512 with bf16):

- pairs: in channels-last memory, two neighbouring columns of C channels can be viewed as one column of 2C
  channels without a copy. A stride of 2 along the width then becomes a stride of 1.
- patches: the windows under the kernel are copied into the rows of a matrix, so that the layer is a matrix product.
- phases: a transposed convolution is computed as a convolution whose output channels are the 2 x 2 pixels of a cell.
- odd kernels of transposed convolutions are padded with zeros to an even size: oneDNN is slow on odd ones at stride 2.
- the bias gradient of a transposed convolution is one sum: PyTorch's own is as slow as the weight gradient.

Images are (B, C, height, width) tensors in channels-last memory. Weights have PyTorch's shapes, in any memory
layout. Everything runs in the dtype of its arguments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from worldmodels.core.device import fast_bfloat16

_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _pairs(x: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, 2C, H, W/2): the channels of columns 2j and 2j+1 become those of column j."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height, width // 2, 2 * channels).permute(0, 3, 1, 2)


def _unpairs(x: Tensor) -> Tensor:
    """Undo `_pairs`."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(batch, height, 2 * width, channels // 2).permute(0, 3, 1, 2)


def _patches(x: Tensor, kernel: int) -> Tensor:
    """Copy the kernel x kernel windows of x at stride 2 into (B * rows * columns, kernel * kernel * C)."""
    x = x.permute(0, 2, 3, 1)
    batch, height, width, channels = x.shape
    rows, columns = (height - kernel) // 2 + 1, (width - kernel) // 2 + 1
    b, h, w, c = x.stride()
    windows = x.as_strided((batch, rows, columns, kernel, kernel, channels), (b, 2 * h, 2 * w, h, w, c))
    return windows.reshape(batch * rows * columns, kernel * kernel * channels)


def _matrix(weight: Tensor) -> Tensor:
    """Lay a weight (M, N, k, k) out as the matrix (M, k * k * N) that multiplies patches."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def _from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """Undo `_matrix` for a weight of the shape of `like`."""
    m, n, height, width = like.shape
    return matrix.view(m, height, width, n).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """View (B, C, H, W) as the matrix (B * H * W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _input_gradient(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input x of a convolution with stride 2, from the gradient g of its output."""
    return _convolution_backward(g, x, weight, (True, False, False))[0]


def _convolution_backward(
    g: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool], transposed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    channels = [g.shape[1]]
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        g, x, weight, channels, [2, 2], [0, 0], [1, 1], transposed, [0, 0], 1, wanted
    )
    return gradients


def _convolution_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int]) -> Tensor:
    if x.dtype in _FUSED:
        return _fused(x, weight, bias, stride)
    return functional.conv2d(x, weight, bias, stride=stride).relu_()


def _fused(x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int]) -> Tensor:
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, [0, 0], stride, [1, 1], 1, "relu", [], "")
    return output


def _can_fuse(dtype: torch.dtype) -> bool:
    """Whether oneDNN's convolution with a fused ReLU exists in this PyTorch and computes the right result.

    The operator is private, and other versions of PyTorch may lack or change it, so it is tested once. Without it, the
    public operators are used.
    """
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    # On the CPU, whatever the default device is when this module is first imported.
    x, weight = torch.ones(1, 2, 4, 4, device="cpu"), torch.ones(3, 2, 2, 2, device="cpu")
    bias = torch.tensor([-16.5, -15.5, 0.0], device="cpu")
    expected = functional.conv2d(x, weight, bias, stride=2).relu_()
    try:
        actual = _fused(x.to(dtype), weight.to(dtype), bias.to(dtype), (2, 2))
        return actual.shape == expected.shape and torch.allclose(actual.float(), expected)
    except (RuntimeError, TypeError, NotImplementedError):
        return False


_NETWORKS = torch.bfloat16 if fast_bfloat16(torch.device("cpu")) else torch.float32
_FUSED = frozenset({_NETWORKS} if _can_fuse(_NETWORKS) else ())
"""The precision in which networks run on this processor, if its convolutions can be fused."""


def _relu_backward(g: Tensor, y: Tensor) -> Tensor:
    """Gradient before the ReLU, from the gradient g after it and the ReLU's output y."""
    gradient: Tensor = torch.ops.aten.threshold_backward(_channels_last(g), y, 0)
    return gradient


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


class _Convolution(torch.autograd.Function):
    """4 x 4 convolution of stride 2, then ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        batch, channels, height, width = x.shape
        if channels >= 128:
            rows, columns = (height - 4) // 2 + 1, (width - 4) // 2 + 1
            y = functional.linear(_patches(x, 4), _matrix(weight), bias).relu_()
            y = y.view(batch, rows, columns, -1).permute(0, 3, 1, 2)
        elif channels <= 4 and width % 2 == 0:
            y = _convolution_relu(_pairs(x), _pairs(weight), bias, (2, 1))
        else:
            y = _convolution_relu(x, weight, bias, (2, 2))
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        x, weight, y = ctx.saved_tensors
        g = _relu_backward(gradients[0], y)
        grad_x = _input_gradient(g, x, weight) if ctx.needs_input_grad[0] else None
        if x.shape[1] >= 64:
            rows = _rows(g)
            return grad_x, _from_matrix(rows.t() @ _patches(x, 4), weight), rows.sum(0)
        _, grad_weight, grad_bias = _convolution_backward(g, x, weight, (False, True, True))
        return grad_x, grad_weight, grad_bias


class _OddTransposed(torch.autograd.Function):
    """5 x 5 transposed convolution of stride 2, then ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        padded = _channels_last(functional.pad(weight, (0, 1, 0, 1)))
        y = functional.conv_transpose2d(x, padded, bias, stride=2)
        y = _channels_last(y[:, :, :-1, :-1]).relu_()
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        x, weight, y = ctx.saved_tensors
        g = _relu_backward(gradients[0], y)
        patches = _patches(g, 5)
        batch, _, height, width = x.shape
        grad_x = (patches @ _matrix(weight).t()).view(batch, height, width, -1).permute(0, 3, 1, 2)
        return grad_x, _from_matrix(_rows(x).t() @ patches, weight), _rows(g).sum(0)


class _EvenTransposed(torch.autograd.Function):
    """6 x 6 transposed convolution of stride 2, then ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        y = functional.conv_transpose2d(x, _pairs(weight), bias.repeat(2), stride=(2, 1))
        y = _unpairs(y).relu_()
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        x, weight, y = ctx.saved_tensors
        g = _relu_backward(gradients[0], y)
        grad_x = functional.conv2d(g, weight, stride=2)
        _, grad_weight, _ = _convolution_backward(g, x, weight, (False, True, False), transposed=True)
        return grad_x, grad_weight, _rows(g).sum(0)


class _ImageTransposed(torch.autograd.Function):
    """6 x 6 transposed convolution of stride 2 to few channels, without an activation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight = _channels_last(x), _channels_last(weight)
        inputs, outputs = weight.shape[:2]
        # Output row 2p + r is the sum over t of input row p - t times kernel row 2t + r; alike for columns.
        phases = weight.view(inputs, outputs, 3, 2, 3, 2).flip(2, 4).permute(3, 5, 1, 0, 2, 4)
        kernel = _channels_last(phases.reshape(4 * outputs, inputs, 3, 3))
        y = functional.conv2d(x, kernel, bias.repeat(4), padding=2)
        batch, _, height, width = y.shape
        y = y.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2 * outputs).transpose(2, 3)
        y = y.reshape(batch, 2 * height, 2 * width, outputs).permute(0, 3, 1, 2)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        x, weight = ctx.saved_tensors
        g = _channels_last(gradients[0])
        grad_x = functional.conv2d(g, weight, stride=2)
        _, grad_weight, _ = _convolution_backward(g, x, weight, (False, True, False), transposed=True)
        # Summing many short rows of few channels is slow: sum whole image rows first.
        outputs = g.shape[1]
        image_rows = g.permute(0, 2, 3, 1).reshape(-1, g.shape[3] * outputs)
        grad_bias = image_rows.sum(0, dtype=_sum_dtype(g)).view(-1, outputs).sum(0).to(g.dtype)
        return grad_x, grad_weight, grad_bias


def convolution_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return relu(conv2d(x, weight, bias, stride=2)) for a weight (out, in, 4, 4)."""
    return _Convolution.apply(x, weight, bias)  # type: ignore[no-untyped-call,no-any-return]


def transposed_from_vector_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return relu(conv_transpose2d(x, weight, bias)) for vectors x (B, in), seen as 1 x 1 images."""
    inputs, outputs, height, width = weight.shape
    y = torch.addmm(bias.repeat_interleave(height * width), x, weight.reshape(inputs, -1))
    return _channels_last(y.view(-1, outputs, height, width)).relu()


def transposed_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return relu(conv_transpose2d(x, weight, bias, stride=2)), weight (in, out, 5, 5) or (in, out, 6, 6)."""
    function = _OddTransposed if weight.shape[3] % 2 else _EvenTransposed
    return function.apply(x, weight, bias)  # type: ignore[no-untyped-call,no-any-return]


def transposed_to_image(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return conv_transpose2d(x, weight, bias, stride=2) for a weight (in, out, 6, 6) with few outputs."""
    return _ImageTransposed.apply(x, weight, bias)  # type: ignore[no-untyped-call,no-any-return]
