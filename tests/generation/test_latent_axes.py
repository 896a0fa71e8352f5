"""Laws of the latents' axes: uncorrelated, of unit deviation, and the same reconstructions as before."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from tiny import tiny_vae

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation.latent_axes import LEAST_RATIO, uncorrelate
from mgcc_monai.networks.autoencoder import decode

CHANNELS = 4


def network(seed: int = 0) -> AutoencoderKL:
    """An autoencoder whose weights, biases and posterior's variance are all of some size."""
    vae = tiny_vae(latents=CHANNELS, seed=seed)
    with torch.no_grad():
        for weight in vae.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    return vae.eval()


def redundant(weight: float = 1.0) -> AutoencoderKL:
    """Three channels that hold nearly the same: what a trained autoencoder was found to do."""
    vae = network()
    with torch.no_grad():
        for channel in (1, 2):
            vae.quant_conv.weight[channel] = weight * vae.quant_conv.weight[0] + 0.02 * vae.quant_conv.weight[channel]
    return vae


def images(count: int = 7) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1


def loader(size: int = 3) -> list[dict[str, torch.Tensor]]:
    """Batches of unequal size, which a mean of means would get wrong."""
    return [{"image": part} for part in images().split(size)]


@torch.no_grad()
def posterior(vae: AutoencoderKL) -> Any:
    return vae.encode(images()).latent_dist


def latents(vae: AutoencoderKL) -> np.ndarray:
    """The posterior's means, one row a channel."""
    return posterior(vae).mean.double().transpose(0, 1).flatten(1).numpy()


def normalised(vae: AutoencoderKL) -> np.ndarray:
    mean, std = (np.asarray(vae.config[f"latents_{name}"])[:, None] for name in ("mean", "std"))
    return (latents(vae) - mean) / std


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("make", [network, redundant])
def test_normalised_latents_are_uncorrelated_whatever_the_batches(make, size):
    vae = make()
    before = np.corrcoef(latents(vae))
    assert np.abs(before - np.eye(CHANNELS)).max() > (0.99 if make is redundant else 0.1), "there is something to turn"
    assert uncorrelate(vae, loader(size)) is vae
    found = normalised(vae)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(found, bias=True), np.eye(CHANNELS), atol=5e-3)


def test_axes_are_those_of_numpy_the_largest_first():
    vae = redundant()
    wanted = np.sqrt(np.linalg.eigvalsh(np.cov(latents(vae), bias=True)))[::-1]
    uncorrelate(vae, loader())
    np.testing.assert_allclose(vae.config.latents_std, wanted, rtol=1e-3)
    assert all(type(value) is float for value in [*vae.config.latents_mean, *vae.config.latents_std]), "JSON"


@torch.no_grad()
def test_reconstructions_stay_what_they_were():
    old, new = redundant(), redundant()
    uncorrelate(new, loader())
    assert not torch.allclose(posterior(old).mean, posterior(new).mean, atol=0.1)
    found, wanted = (decode(vae, posterior(vae).mean) for vae in (new, old))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_turning_again_changes_nothing():
    vae = redundant()
    uncorrelate(vae, loader())
    before = copy.deepcopy(vae.state_dict())
    uncorrelate(vae, loader())
    for name, value in vae.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-3, atol=1e-4, msg=name)


@torch.no_grad()
def test_variance_of_the_posterior_is_the_mean_one_along_the_axes():
    old, new = network(), network()
    wanted = posterior(old).var.double().mean((0, 2, 3))
    uncorrelate(new, loader())
    axes = torch.linalg.lstsq(
        old.quant_conv.weight[:CHANNELS, :, 0, 0].double().T, new.quant_conv.weight[:CHANNELS, :, 0, 0].double().T
    ).solution
    torch.testing.assert_close(axes.T @ axes, torch.eye(CHANNELS).double(), rtol=0, atol=1e-5)
    found = posterior(new).var.double()
    torch.testing.assert_close(found, found.mean((0, 2, 3), keepdim=True).expand_as(found))
    assert float(found.mean((0, 2, 3)).sum()) == pytest.approx(float(wanted.sum()), rel=1e-4)
    torch.testing.assert_close(found.mean((0, 2, 3)), (axes.T @ wanted.diag() @ axes).diagonal(), rtol=1e-4, atol=0)


def test_axis_that_holds_nothing_is_not_blown_up():
    """Exact copies leave an axis of rounding errors alone, which at unit deviation would be noise to learn."""
    vae = network()
    with torch.no_grad():
        vae.quant_conv.weight[1], vae.quant_conv.bias[1] = vae.quant_conv.weight[0], vae.quant_conv.bias[0]
    uncorrelate(vae, loader())
    std = vae.config.latents_std
    assert std[-1] == pytest.approx(LEAST_RATIO * std[0]) and std[-2] > 10 * std[-1]
    assert normalised(vae)[-1].std() < 0.05


def test_small_deviation_far_from_nought():
    """In single precision the difference of the squares would be lost."""
    vae = network()
    with torch.no_grad():
        vae.quant_conv.bias[:CHANNELS] = 50.0
        vae.quant_conv.weight[:CHANNELS] *= 1e-2
    wanted = np.sqrt(np.linalg.eigvalsh(np.cov(latents(vae), bias=True)))[::-1]
    uncorrelate(vae, loader())
    np.testing.assert_allclose(vae.config.latents_std[:2], wanted[:2], rtol=1e-2)


@pytest.mark.parametrize("kind", ["constant", "nan", "inf"])
def test_channel_that_says_nothing_is_refused(kind):
    vae = network()
    with torch.no_grad():
        vae.quant_conv.weight[1] = 0 if kind == "constant" else float(kind)
        vae.quant_conv.bias[1] = 0.7
    with pytest.raises(
        MGCCError, match=r"standard deviations are \[.*, (0\.0|nan), .*\].*--autoencoder_latent_channels"
    ):
        uncorrelate(vae, loader())
