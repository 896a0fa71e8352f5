"""The denoiser of stage 1: a thin adapter from ``diffusers.UNet2DModel`` to the inferers of MONAI."""

from __future__ import annotations

import torch
from torch import nn

from mgcc_monai.networks.upsampling import fuse_upsampling

__all__ = ["Denoiser"]


class Denoiser(nn.Module):
    """Call a ``diffusers.UNet2DModel`` as :class:`monai.inferers.DiffusionInferer` calls a network.

    Args:
        unet: the network; class-conditional when it has ``num_class_embeds``, the last of which is the null class.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = fuse_upsampling(unet)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Predict noise or velocity.

        Args:
            x: noisy latents BCHW.
            timesteps: their time steps, B.
            context: class numbers, B; None for an unconditional network.

        Returns:
            a tensor of the shape of ``x``.
        """
        x = x.to(getattr(self.unet, "dtype", x.dtype))  # of the weights
        return self.unet(x, timesteps, class_labels=context, return_dict=False)[0]
