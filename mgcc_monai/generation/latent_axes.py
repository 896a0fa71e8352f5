"""The latents' axes and scale: what a trained autoencoder is given before a denoiser learns from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AutoencoderKL

from mgcc_monai.errors import MGCCError
from mgcc_monai.networks.autoencoder import encode

__all__ = ["uncorrelate"]

LEAST_RATIO = 1e-3  # of an axis's deviation to the largest: below it lies what single precision rounds away


@torch.no_grad()
def uncorrelate(vae: AutoencoderKL, loader: Iterable[Any], device: Any = "cpu") -> AutoencoderKL:
    """Turn the latents onto their principal axes, and write mean and deviation along each into the config.

    An autoencoder is free to write the mean grey of a place into every channel. Scaled one by one, such channels drown
    the detail between them: independent noise in eight copies of one number averages out, so that the denoiser sees
    what is coarse through far more noise than the schedule supposes, and what is fine vanishes in the first step. On
    uncorrelated axes of unit deviation all of it meets the noise that the schedule was made for. The turn is folded
    into the convolutions beside the latents, so reconstructions stay what they were, and diffusers reads the networks
    as any others. Axes are in order of their deviation, the largest first.

    Args:
        vae: the autoencoder, in evaluation mode; changed in place.
        loader: batches with ``image`` B1HW in [-1, 1]: all images that it was trained on.
        device: where to encode.

    Returns:
        the same autoencoder, with ``latents_mean`` and ``latents_std`` in its config. No deviation is less than a
        thousandth of the largest. The variance of its posterior is the mean one over all images, along the new axes.

    Raises:
        MGCCError: when a channel is constant or not finite: the autoencoder has not learned.
    """
    mean, covariance, variance = _moments(vae, loader, device)
    std = covariance.diagonal().clamp_min(0).sqrt()
    if not bool((std > 1e-8).all() and torch.isfinite(covariance).all()):
        raise MGCCError(
            f"The latents' standard deviations are {[float(f'{value:.3g}') for value in std]}: a channel says nothing "
            "about the image; train the autoencoder longer or with fewer --autoencoder_latent_channels."
        )
    variances, axes = torch.linalg.eigh(covariance)
    variances, axes = variances.flip(0), axes.flip(1)
    axes *= axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # eigh leaves the signs open
    count = len(mean)
    inner, outer = vae.quant_conv, vae.post_quant_conv
    weight, bias = inner.weight.double().cpu(), inner.bias.double().cpu()
    turned = torch.cat([torch.einsum("ci,cjhw->ijhw", axes, weight[:count]), torch.zeros_like(weight[count:])])
    inner.weight.copy_(turned)
    inner.bias.copy_(torch.cat([axes.T @ bias[:count], (axes.square().T @ variance).log()]))
    outer.weight.copy_(torch.einsum("ochw,ci->oihw", outer.weight.double().cpu(), axes))
    std = variances.clamp_min(0).sqrt()
    std = std.clamp_min(LEAST_RATIO * float(std.max()))
    vae.register_to_config(latents_mean=(axes.T @ mean).tolist(), latents_std=std.tolist())
    return vae


def _moments(vae: AutoencoderKL, loader: Iterable[Any], device: Any) -> tuple[torch.Tensor, ...]:
    """Return mean C and covariance CC of the posterior's means over all images and places, and its mean variance C."""
    channels = vae.config.latent_channels
    count, total = 0, torch.zeros(channels).double()
    products, variance = torch.zeros(channels, channels).double(), torch.zeros(channels).double()
    for batch in loader:
        posterior = encode(vae, torch.as_tensor(batch["image"]).to(device))
        latents, spread = (
            values.double().transpose(0, 1).flatten(1).cpu() for values in (posterior.mode(), posterior.var)
        )
        count += latents.shape[1]
        total += latents.sum(1)
        products += latents @ latents.T
        variance += spread.sum(1)
    mean = total / count
    return mean, products / count - torch.outer(mean, mean), variance / count
