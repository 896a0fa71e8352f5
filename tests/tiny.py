"""What tests of several rooms build: a tiny autoencoder, and the comparison of two states."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL


def tiny_vae(channels: int = 1, levels: int = 1, latents: int = 3, seed: int = 0) -> AutoencoderKL:
    """An untrained autoencoder of 8 channels; its latents have the side over ``2 ** (levels - 1)``."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        latent_channels=latents,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def same(first: Any, second: Any) -> bool:
    """Bitwise equality of nested states."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second
