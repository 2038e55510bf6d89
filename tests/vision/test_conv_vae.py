"""The convolutional VAE computes what the paper's layers compute, whatever the order of its work."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.vision.conv_vae import ConvVAE, vae_loss


class _PlainVAE(nn.Module):
    """The paper's autoencoder, written down with PyTorch's own layers; parameters in the order of ConvVAE."""

    def __init__(self, latent_size: int) -> None:
        super().__init__()
        encoder = [(3, 32), (32, 64), (64, 128), (128, 256)]
        decoder = [(1024, 128, 5), (128, 64, 5), (64, 32, 6), (32, 3, 6)]
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2) for a, b in encoder)
        self.mu, self.logvar = nn.Linear(1024, latent_size), nn.Linear(1024, latent_size)
        self.fc = nn.Linear(latent_size, 1024)
        self.decoder = nn.ModuleList(nn.ConvTranspose2d(a, b, k, stride=2) for a, b, k in decoder)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = images
        for layer in self.encoder:
            h = functional.relu(layer(h))
        flat = h.permute(0, 2, 3, 1).flatten(1)
        mu, logvar = self.mu(flat), self.logvar(flat)
        h = self.fc(mu + torch.exp(logvar / 2) * noise)[:, :, None, None]
        for index, layer in enumerate(self.decoder):
            h = layer(h)
            h = functional.relu(h) if index < 3 else torch.sigmoid(h)
        return h, mu, logvar


def _pair(dtype: torch.dtype) -> tuple[ConvVAE, _PlainVAE]:
    torch.manual_seed(0)
    vae, plain = ConvVAE(32).to(dtype), _PlainVAE(32).to(dtype)
    with torch.no_grad():
        for mine, theirs in zip(vae.parameters(), plain.parameters(), strict=True):
            theirs.copy_(mine)
    return vae, plain


def _relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(("latent_size", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_it_has_the_papers_number_of_parameters(latent_size: int, count: int) -> None:
    assert sum(parameter.numel() for parameter in ConvVAE(latent_size).parameters()) == count


def test_parameters_have_the_shapes_and_layout_of_ordinary_convolutions() -> None:
    vae = ConvVAE(32)
    assert vae.enc_conv1.weight.shape == (32, 3, 4, 4)
    assert vae.dec_deconv1.weight.shape == (1024, 128, 5, 5)
    assert vae.dec_deconv4.weight.shape == (32, 3, 6, 6)
    assert all(parameter.is_contiguous() for parameter in vae.parameters())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_outputs_and_all_gradients_are_those_of_the_plain_layers(dtype: torch.dtype, tolerance: float) -> None:
    vae, plain = _pair(dtype)
    images, noise = torch.rand(3, 3, 64, 64, dtype=dtype), torch.randn(3, 32, dtype=dtype)
    results = []
    for model in (vae, plain):
        pixels = images.clone().requires_grad_()
        reconstruction, mu, logvar = model(pixels, noise)
        # Weights that differ from pixel to pixel and the bare terms of z keep every gradient away from zero.
        error = (torch.linspace(0, 1, 64, dtype=dtype) * (reconstruction - images).square()).sum()
        (error + mu.square().sum() + logvar.sum()).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append([reconstruction, mu, logvar, pixels.grad, *gradients])
    for mine, theirs in zip(*results, strict=True):
        assert _relative(mine, theirs) < tolerance
    assert all(p.grad is not None and p.grad.stride() == p.stride() for p in vae.parameters())


def test_bfloat16_is_close_to_float32() -> None:
    vae, _ = _pair(torch.float32)
    images, noise = torch.rand(8, 3, 64, 64), torch.randn(8, 32)
    gradients = []
    for enabled in (False, True):
        vae.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = vae(images, noise)
        total, _ = vae_loss(output.reconstruction, images, output.mu, output.logvar)
        total.backward()
        gradients.append([output.reconstruction.float(), *(p.grad for p in vae.parameters() if p.grad is not None)])
        assert output.mu.dtype == output.logvar.dtype == torch.float32
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in vae.parameters())
    for exact, rounded in zip(*gradients, strict=True):
        assert functional.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.995
    assert (gradients[0][0] - gradients[1][0]).abs().max() < 0.01


def test_any_memory_layout_of_images_and_weights_gives_the_same_latents() -> None:
    vae, _ = _pair(torch.float32)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected, _ = vae.encode(images)
        actual, _ = vae.to(memory_format=torch.channels_last).encode(
            images.contiguous(memory_format=torch.channels_last)
        )
    assert torch.allclose(expected, actual, atol=1e-6)


def test_the_encoder_flattens_in_row_column_channel_order() -> None:
    vae, plain = _pair(torch.float32)
    images = torch.rand(1, 3, 64, 64)
    h = images
    with torch.no_grad():
        for layer in plain.encoder:
            h = functional.relu(layer(h))
        flat = torch.stack([h[0, :, row, column] for row in range(2) for column in range(2)]).flatten()
        assert torch.allclose(vae.encode(images)[0][0], plain.mu(flat), atol=1e-5)


def test_decoding_is_the_sigmoid_of_the_logits_and_lies_between_zero_and_one() -> None:
    vae, _ = _pair(torch.float32)
    with torch.no_grad():
        z = 3 * torch.randn(4, 32)
        images = vae.decode(z)
        assert images.shape == (4, 3, 64, 64)
        assert images.min() >= 0 and images.max() <= 1
        assert torch.allclose(images, torch.sigmoid(vae.decode_logits(z)))


def test_the_loss_is_the_papers() -> None:
    torch.manual_seed(1)
    reconstruction, images = torch.rand(5, 3, 64, 64), torch.rand(5, 3, 64, 64)
    mu, logvar = 2 * torch.randn(5, 32), torch.randn(5, 32)
    total, parts = vae_loss(reconstruction, images, mu, logvar)
    r, x, m, v = (t.double() for t in (reconstruction, images, mu, logvar))
    errors = [(r[i] - x[i]).pow(2).sum() for i in range(5)]
    divergences = [
        torch.distributions.kl_divergence(
            torch.distributions.Normal(m[i], torch.exp(v[i] / 2)), torch.distributions.Normal(0.0, 1.0)
        ).sum()
        for i in range(5)
    ]
    assert parts["reconstruction"].item() == pytest.approx(float(sum(errors)) / 5, rel=1e-6)
    assert parts["kl"].item() == pytest.approx(float(sum(divergences)) / 5, rel=1e-6)
    assert total.item() == pytest.approx(parts["reconstruction"].item() + parts["kl"].item(), rel=1e-6)


def test_the_foreground_weight_weighs_errors_by_how_unusual_the_frame_is_there() -> None:
    torch.manual_seed(2)
    reconstruction, images = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    images[:, :, :32] = images[:1, :, :32]  # the upper half never changes
    mu = logvar = torch.zeros(3, 32)
    plain, weighted = (vae_loss(reconstruction, images, mu, logvar, 0.5, weight)[1] for weight in (0.0, 7.0))
    r, x = reconstruction.double().numpy(), images.double().numpy()
    wanted = 0.0
    for image in range(3):
        for row in range(64):
            for column in range(64):
                distance = abs(x[image, :, row, column] - x[:, :, row, column].mean(axis=0)).mean()
                error = (r[image, :, row, column] - x[image, :, row, column]) ** 2
                wanted += (1 + 7 * distance) * error.sum() / 3
    assert weighted["reconstruction"].item() == pytest.approx(wanted, rel=1e-6)
    still = vae_loss(reconstruction[:, :, :32], images[:, :, :32], mu, logvar, 0.5, 7.0)[1]["reconstruction"]
    assert still.item() == pytest.approx(float(((r - x)[:, :, :32] ** 2).sum()) / 3, rel=1e-6)
    assert weighted["reconstruction"] > plain["reconstruction"]


def test_the_divergence_has_a_floor_for_each_image_and_no_gradient_below_it() -> None:
    mu = torch.zeros(2, 32)
    mu[1] = 3.0
    mu.requires_grad_()
    total, parts = vae_loss(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64), mu, torch.zeros(2, 32))
    total.backward()
    assert parts["kl"].item() == pytest.approx((16.0 + 0.5 * 9 * 32) / 2)
    assert mu.grad is not None
    assert mu.grad[0].abs().max() == 0 and mu.grad[1].abs().min() > 0


def test_the_loss_of_bfloat16_images_is_summed_in_float32() -> None:
    reconstruction = torch.full((2, 3, 64, 64), 0.5, dtype=torch.bfloat16)
    images = torch.zeros(2, 3, 64, 64, dtype=torch.bfloat16)
    _, parts = vae_loss(reconstruction, images, torch.zeros(2, 32), torch.zeros(2, 32))
    assert parts["reconstruction"].dtype == torch.float32
    assert parts["reconstruction"].item() == 3072.0


def test_a_few_steps_of_training_lower_the_loss() -> None:
    torch.manual_seed(2)
    vae = ConvVAE(8)
    optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3, fused=True)
    images = torch.rand(8, 3, 1, 1).expand(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    losses = []
    for _ in range(6):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = vae(images, torch.randn(8, 8))
        total, _ = vae_loss(output.reconstruction, images, output.mu, output.logvar)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.97 * losses[0]
