"""Laws of the autoencoder's adapters: squares of pixels as channels, and what each mode of the network returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from tiny import tiny_vae
from torch import nn

from mgcc_monai.networks import Autoencoder
from mgcc_monai.networks.autoencoder import decode, encode


def tiny(channels: int = 1, levels: int = 2) -> AutoencoderKL:
    return tiny_vae(channels, levels).eval()


def images(count: int = 2, height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def folded(image: np.ndarray, side: int) -> np.ndarray:
    """Channel ``side * i + j`` holds the pixels in row i and column j of every square."""
    return np.concatenate([image[:, :, i::side, j::side] for i in range(side) for j in range(side)], axis=1)


def trained(channels: int = 1) -> Autoencoder:
    """A network whose weights are all somewhere."""
    network = Autoencoder(tiny(channels))
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn(weight.shape)
    return network


class Spy(nn.Module):
    """Stands in for an autoencoder that keeps everything, and remembers what it was given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.config = type("Config", (), {"in_channels": channels})()
        self.given: dict[str, torch.Tensor] = {}

    def encode(self, image: torch.Tensor) -> object:
        self.given["encode"] = image
        return type("Output", (), {"latent_dist": image})()

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        return (latents,)


@pytest.mark.parametrize("channels, side", [(1, 1), (4, 2), (9, 3)])
def test_fold_is_that_of_plain_slices(channels, side):
    spy, image = Spy(channels), images(height=12, width=18)
    latents = encode(spy, image)
    assert spy.given["encode"].shape == (2, channels, 12 // side, 18 // side)
    np.testing.assert_array_equal(spy.given["encode"].numpy(), folded(image.numpy(), side))
    assert torch.equal(decode(spy, latents), image), "unfolding undoes folding, pixel by pixel"


@pytest.mark.parametrize("channels", [1, 4])
def test_encode_is_the_diffusers_model_on_folded_images(channels):
    vae, image = tiny(channels), images()
    side = int(channels**0.5)
    wanted = vae.encode(torch.from_numpy(folded(image.numpy(), side))).latent_dist
    found = encode(vae, image)
    assert torch.equal(found.mean, wanted.mean) and torch.equal(found.logvar, wanted.logvar)
    pixels = vae.decode(wanted.mean).sample.detach().numpy()
    np.testing.assert_array_equal(folded(decode(vae, wanted.mean).detach().numpy(), side), pixels)


@pytest.mark.parametrize("channels, levels, scale", [(1, 1, 1), (1, 2, 2), (1, 3, 4), (4, 1, 2), (4, 2, 4), (9, 2, 6)])
@pytest.mark.parametrize("height, width", [(24, 24), (24, 36)])
def test_nothing_is_cropped_or_padded(channels, levels, scale, height, width):
    """One latent for every ``side * 2 ** (levels - 1)`` pixels either way, and the whole image back."""
    vae, image = tiny(channels, levels), images(1, height, width)
    latents = encode(vae, image).mean
    assert latents.shape == (1, 3, height // scale, width // scale)
    assert decode(vae, latents).shape == image.shape


def test_training_returns_reconstruction_mean_and_logvar():
    network, image = trained(4).train(), images()
    torch.manual_seed(5)
    reconstruction, mean, logvar = network(image)
    posterior = encode(network.vae, image)
    assert torch.equal(mean, posterior.mean) and torch.equal(logvar, posterior.logvar)
    torch.manual_seed(5)
    draw = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape)
    assert torch.allclose(reconstruction, decode(network.vae, draw), atol=1e-6)
    assert not torch.equal(network(image)[0], reconstruction), "another draw, another picture"


def test_evaluation_is_the_posterior_mean_and_draws_nothing():
    network, image = trained().eval(), images()
    torch.manual_seed(6)
    before = torch.random.get_rng_state()
    first = network(image)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert isinstance(first, torch.Tensor) and first.shape == image.shape
    assert torch.equal(network(image), first)
    assert torch.equal(first, decode(network.vae, encode(network.vae, image).mean))


def test_gradients_reach_every_weight():
    network = trained(4).train()
    sum(part.square().sum() for part in network(images())).backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_residual_blocks_start_as_the_identity_and_leave_it_but_only_when_asked():
    vae, x = tiny(), torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(2))
    blocks = [module for module in vae.modules() if isinstance(module, ResnetBlock2D)]
    assert len(blocks) > 4 and not any(torch.allclose(block(x, None), x, atol=1e-2) for block in blocks)
    before = [weight.clone() for weight in vae.parameters()]
    Autoencoder(vae)
    assert all(map(torch.equal, before, vae.parameters())), "a trained one is left as it is"
    network = Autoencoder(vae, start_as_identity=True).train()
    assert all(torch.equal(block(x, None), x) for block in blocks)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    sum(part.square().mean() for part in network(images())).backward()
    optimizer.step()
    assert not any(torch.equal(block(x, None), x) for block in blocks), "every block learns from the first step on"
