"""The autoencoder of stage 1: thin adapters from ``diffusers.AutoencoderKL`` to images and to the engines of MONAI."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from mgcc_monai.networks.upsampling import fuse_upsampling

__all__ = ["Autoencoder", "decode", "encode"]


def encode(vae: nn.Module, image: torch.Tensor) -> Any:
    """Return the posterior of images' latents.

    An autoencoder of more than one channel gets squares of pixels as channels (a side of 2 for 4 channels), which
    spares it the layers at full resolution: a CPU takes about three steps in the time of one.

    Args:
        vae: a ``diffusers.AutoencoderKL`` of 1, 4, 9, ... channels.
        image: B1HW in [-1, 1].

    Returns:
        the distribution over BCHW, with ``mean``, ``logvar``, ``mode()`` and ``sample()``.
    """
    return vae.encode(_as_weights(vae, nn.functional.pixel_unshuffle(image, _side(vae)))).latent_dist


def decode(vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    """Return the images B1HW, about [-1, 1], of latents BCHW; see :func:`encode`."""
    return nn.functional.pixel_shuffle(vae.decode(_as_weights(vae, latents), return_dict=False)[0], _side(vae))


def _as_weights(vae: Any, values: torch.Tensor) -> torch.Tensor:
    """Return values in the type of the weights that they go through."""
    return values.to(getattr(vae, "dtype", values.dtype))


def _side(vae: Any) -> int:
    return math.isqrt(vae.config.in_channels)


class Autoencoder(nn.Module):
    """Call a ``diffusers.AutoencoderKL`` as a network of one tensor.

    In training it returns ``[reconstruction, mean, logvar]``, the reconstruction being of a draw from the posterior;
    in evaluation it returns the reconstruction of the posterior's mean alone.

    Args:
        vae: the autoencoder.
        start_as_identity: make every residual block the identity, so that the first steps of a training already learn
            what to keep of an image. Not for a trained autoencoder, which it would undo.

    Source:
        Rombach et al. 2022 (arXiv 2112.10752), section 3.1; Goyal et al. 2017 (arXiv 1706.02677), section 5.1 (blocks
        that start as the identity).
    """

    def __init__(self, vae: nn.Module, start_as_identity: bool = False) -> None:
        super().__init__()
        self.vae = fuse_upsampling(vae)
        for module in vae.modules() if start_as_identity else ():
            if isinstance(module, ResnetBlock2D):
                nn.init.zeros_(module.conv2.weight)
                nn.init.zeros_(module.conv2.bias)

    def forward(self, image: torch.Tensor) -> Any:
        """Reconstruct images B1HW in [-1, 1]."""
        posterior = encode(self.vae, image)
        if not self.training:
            return decode(self.vae, posterior.mode())
        return [decode(self.vae, posterior.sample()), posterior.mean, posterior.logvar]
