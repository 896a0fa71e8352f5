"""Checks that networks can be built as asked for, and take images of the size asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mgcc_monai.errors import raise_faults
from mgcc_monai.generation.storage import load_autoencoder

__all__ = ["check_autoencoder_shape", "check_denoiser_shape", "check_segmenter_shape"]

_AUTOENCODER_GROUPS, _DENOISER_GROUPS = 8, 32  # of their group normalisation


def check_segmenter_shape(image_size: Sequence[int], channels: Sequence[int]) -> None:
    """Check that the encoder can halve the image at each level but the first.

    Args:
        image_size: sides in pixels.
        channels: of each level.

    Raises:
        MGCCError: when it cannot.
    """
    raise_faults(_sides("image_size", image_size, 2 ** (len(channels) - 1), "channels"), "network")


def check_autoencoder_shape(
    image_size: Sequence[int], patch_size: Sequence[int], fold: int, channels: Sequence[int]
) -> None:
    """Check what the autoencoder is built of, and that images and patches fit it.

    Args:
        image_size: sides in pixels.
        patch_size: sides of what it learns from, in pixels.
        fold: side of the squares of pixels that it sees as channels.
        channels: of each level.

    Raises:
        MGCCError: lists every fault.
    """
    faults = _groups("autoencoder_channels", channels, _AUTOENCODER_GROUPS)
    factor, names = fold * 2 ** (len(channels) - 1), "autoencoder_fold and autoencoder_channels"
    for name, sides in (("image_size", image_size), ("autoencoder_patch_size", patch_size)):
        faults += _sides(name, sides, factor, names)
    raise_faults(list(dict.fromkeys(faults)), "autoencoder")


def check_denoiser_shape(
    image_size: Sequence[int], autoencoder_dir: str, channels: Sequence[int], attention: Sequence[bool]
) -> None:
    """Check what the denoiser is built of, and that the latents fit it.

    Args:
        image_size: sides in pixels.
        autoencoder_dir: folder of the finished autoencoder.
        channels: of each level.
        attention: whether each level has it.

    Raises:
        MGCCError: lists every fault.
    """
    faults = _groups("diffusion_channels", channels, _DENOISER_GROUPS)
    if len(attention) != len(channels):
        faults.append(
            f"--diffusion_attention {list(attention)}: {len(attention)} levels, --diffusion_channels has "
            f"{len(channels)}; give as many."
        )
    config: Any = load_autoencoder(autoencoder_dir).config
    shrinks = round(config.in_channels**0.5) * 2 ** (len(config.block_out_channels) - 1)
    faults += _sides("image_size", image_size, shrinks * 2 ** (len(channels) - 1), "diffusion_channels")
    raise_faults(faults, "denoiser")


def _sides(name: str, sides: Any, factor: int, why: str) -> list[str]:
    pair = isinstance(sides, list | tuple) and len(sides) == 2
    if pair and all(isinstance(side, int) and side > 0 and side % factor == 0 for side in sides):
        return []
    return [f"--{name} {sides}: give two multiples of {factor}, which {why} ask for."]


def _groups(name: str, channels: Sequence[int], groups: int) -> list[str]:
    if all(number % groups == 0 for number in channels):
        return []
    return [f"--{name} {list(channels)}: give multiples of {groups}."]
