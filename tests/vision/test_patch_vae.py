"""The patch VAE computes what its layers say, and begins without blocks or a checkerboard."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from worldmodels.vision.patch_vae import PATCH, PatchVAE
from worldmodels.vision.vae_gan import VAEGAN, SmallVAEGAN

F64 = torch.float64


def changed() -> PatchVAE:
    """A model in float64 none of whose weights is still as it began."""
    torch.manual_seed(0)
    vision = PatchVAE(8).to(F64)
    with torch.no_grad():
        for parameter in vision.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return vision


def normed(h: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """A layer norm over the channels of (B, C, rows, columns), written down."""
    centred = h - h.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


def silu(h: Tensor) -> Tensor:
    return h / (1 + torch.exp(-h))


def enlarged(h: Tensor, size: int) -> Tensor:
    """Channels (row in the cell, column in the cell, channel) as pixels; PyTorch has the channel first."""
    batch, channels, rows, columns = h.shape
    outputs = channels // size**2
    first = h.view(batch, size**2, outputs, rows, columns).transpose(1, 2).reshape(h.shape)
    return functional.pixel_shuffle(first, size)


def test_latents_are_those_of_ordinary_convolutions() -> None:
    vision, images = changed(), torch.rand(2, 3, 64, 64, dtype=F64)
    kernel = vision.enc_patches.weight.view(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2)
    h = functional.conv2d(images - 0.5, kernel, vision.enc_patches.bias, stride=PATCH)
    h = silu(normed(h, vision.enc_norm1))
    h = silu(normed(functional.conv2d(h, vision.enc_down1.weight, vision.enc_down1.bias, 2, 1), vision.enc_norm2))
    h = silu(normed(functional.conv2d(h, vision.enc_down2.weight, vision.enc_down2.bias, 2, 1), vision.enc_norm3))
    flat = h.permute(0, 2, 3, 1).reshape(2, -1)
    for found, head in zip(vision.encode(images), (vision.enc_mu, vision.enc_logvar), strict=True):
        assert torch.allclose(found, flat @ head.weight.T + head.bias, atol=1e-12)


def test_images_are_those_of_ordinary_convolutions_and_pixel_shuffles() -> None:
    vision, z = changed(), torch.randn(2, 8, dtype=F64)
    h = (z @ vision.dec_grid.weight.T + vision.dec_grid.bias).view(2, 4, 4, -1).permute(0, 3, 1, 2)
    h = silu(normed(h, vision.dec_norm1))
    for up, mix in ((vision.dec_up1, vision.dec_mix1), (vision.dec_up2, vision.dec_mix2)):
        h = enlarged(functional.conv2d(h, up.weight[:, :, None, None], up.bias), 2)
        inside = silu(normed(h, mix.norm))
        h = h + functional.conv2d(inside, mix.convolution.weight, mix.convolution.bias, padding=1)
    h = silu(normed(h, vision.dec_norm2))
    logits = enlarged(functional.conv2d(h, vision.dec_patches.weight, vision.dec_patches.bias, padding=1), PATCH)
    assert torch.allclose(vision.decode_logits(z), logits, atol=1e-12)
    assert torch.allclose(vision.decode(z), 1 / (1 + torch.exp(-logits)), atol=1e-12)


def test_a_patch_keeps_its_place_on_the_way_in_and_out() -> None:
    vision = PatchVAE(4)
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        vision.enc_patches.weight.copy_(torch.eye(48))
        assert vision.enc_patches.bias is not None
        vision.enc_patches.bias.zero_()
    seen: list[Tensor] = []
    vision.enc_norm1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images[0, 2, 4 * 5 + 1, 4 * 9 + 3] = 1.0  # row 1, column 3 of the patch in row 5, column 9; blue
    vision.encode(images)
    (where,) = (seen[0][0] > 0).nonzero().tolist()
    assert where == [5, 9, (1 * 4 + 3) * 3 + 2]


def test_the_pixels_of_a_cell_begin_alike() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        images = PatchVAE(4).decode(torch.randn(1, 4))[0]
    cells = images.view(3, 16, 4, 16, 4)
    spread = (cells - cells[:, :, :1, :, :1]).abs().max()
    assert spread < 1e-6 and images.std() > 1e-3


@pytest.mark.parametrize(
    ("kind", "encoder", "decoder"), [(PatchVAE, 12.2, 36.8), (VAEGAN, 236.0, 557.0), (SmallVAEGAN, 16.6, 38.7)]
)
def test_the_documented_numbers_of_operations_are_right(kind: type, encoder: float, decoder: float) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    vision, counted = kind(32), []
    for work in (lambda: vision.encode(torch.zeros(1, 3, 64, 64)), lambda: vision.decode(torch.zeros(1, 32))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        counted.append(counter.get_total_flops() / 1e6)
    assert counted == pytest.approx([encoder, decoder], rel=0.01)
