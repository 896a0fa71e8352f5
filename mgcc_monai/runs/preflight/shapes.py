"""Checks that networks can be built as asked for, and take images of the size asked for.

Behind what can be told in numbers, each takes a step of its training on torch's meta device, which knows shapes and no
values: it needs no memory and no data, draws no random number, and finds what only a step finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from monai.bundle import ConfigParser

from mgcc_monai.errors import MGCCError, one_line, raise_errors
from mgcc_monai.generation.schedulers import new_scheduler
from mgcc_monai.generation.storage import load_autoencoder
from mgcc_monai.runs.config import active_parser

__all__ = [
    "check_aspect",
    "check_autoencoder_shape",
    "check_denoiser_shape",
    "check_segmenter_shape",
    "check_segmenter_step",
    "copy_parser",
    "untrained",
    "untrained_denoiser",
]

_AUTOENCODER_GROUPS, _DENOISER_GROUPS = 8, 32  # of their group normalisation


def check_aspect(image_size: Sequence[int]) -> None:
    """Check that images which keep their aspect come out at one size: the longer side is fitted, the other padded.

    Args:
        image_size: sides in pixels.

    Raises:
        MGCCError: when the sides differ, so that a wide image and a tall one would too.
    """
    if "longest" in str(active_parser().get("resize")):
        check_square(image_size)


def check_square(image_size: Sequence[int]) -> None:
    """Refuse two sides that differ; see :func:`check_aspect`."""
    if len(set(image_size)) > 1:
        raise MGCCError(f"--image_size {list(image_size)}: must have two equal sides where the aspect is kept.")


def check_segmenter_shape(image_size: Sequence[int], channels: Sequence[int]) -> None:
    """Check that the encoder can halve the image at each level but the first.

    Args:
        image_size: sides in pixels.
        channels: of each level.

    Raises:
        MGCCError: when it cannot.
    """
    raise_errors(_sides("image_size", image_size, 2 ** (len(channels) - 1), "channels"), "network")


def copy_parser(parser: ConfigParser, **stand_ins: Any) -> ConfigParser:
    """Copy a config, so that what is built of it is no part of the run.

    Args:
        parser: of the config.
        stand_ins: objects by the id that they take the place of, its ``#`` written ``__``.
    """
    names = {name: f"stand_in_{name}" for name in stand_ins}
    copied = ConfigParser(deepcopy(parser.config), globals={**parser.globals})
    copied.globals.update({names[name]: value for name, value in stand_ins.items()})
    for name in stand_ins:
        copied[name.replace("__", "#")] = f"${names[name]}"
    return copied


def untrained(id: str, parser: ConfigParser | None = None, **stand_ins: Any) -> Any:
    """Build a part of a config on the meta device: it has shapes, no values, and cost nothing.

    Args:
        id: the part, such as "network_def".
        parser: of the config; that of the running one by default.
        stand_ins: as of :func:`copy_parser`.
    """
    device = torch.device("meta")
    with device:
        return copy_parser(parser or active_parser(), device=device, **stand_ins).get_parsed_content(id)


@contextmanager
def _step(what: str, options: str) -> Iterator[None]:
    """Tell in one line why a step fails, and which options to look at."""
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except Exception as error:
        while error.__cause__ is not None:  # what MONAI says of a component stands before what is wrong with it
            error = error.__cause__
        raise MGCCError(f"{what}: {one_line(error).rstrip('.')}; look at {options}.") from None


def _empty(count: int, channels: int, *sides: int) -> torch.Tensor:
    return torch.empty(count, channels, *sides, device="meta")


def check_segmenter_step(
    image_size: Sequence[int], batch_size: int, unlabeled_batch_size: int, consistency_weight: float
) -> None:
    """Check that network and loss of the running config can be built, and take a batch.

    Args:
        image_size: sides in pixels.
        batch_size: labelled images a batch.
        unlabeled_batch_size: unlabelled images a batch.
        consistency_weight: final weight of the consistency; 0 for no unlabelled images.

    Raises:
        MGCCError: when they do not, as where batch normalisation has one value a channel.
    """
    images = batch_size + (unlabeled_batch_size if consistency_weight else 0)
    options = "--batch_size, --image_size, --channels and the method"
    with _step(f"a training step of the segmenter, a batch of {images} of {list(image_size)} pixels", options):
        untrained("loss")
        network = untrained("network_def").train()
        network(_empty(images, 1, *image_size))


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
    factor, names = fold * 2 ** (len(channels) - 1), "autoencoder_pixel_unshuffle and autoencoder_channels"
    for name, sides in (("image_size", image_size), ("autoencoder_patch_size", patch_size)):
        faults += _sides(name, sides, factor, names)
    raise_errors(list(dict.fromkeys(faults)), "autoencoder")
    options = "--autoencoder_patch_size, --image_size and the other --autoencoder_... options"
    with _step(f"a training step of the autoencoder with patches of {list(patch_size)} pixels", options):
        network = untrained("network_def")
        network.train()(_empty(1, 1, *patch_size[::-1]))
        network.eval()(_empty(1, 1, *image_size[::-1]))
        loss = copy_parser(active_parser(), device=torch.device("cpu")).get_parsed_content("loss")
        loss.detail_active = True  # the last phase, in which the discriminator sees the patches too
        patch, latent = torch.rand(1, 1, *patch_size[::-1]), torch.zeros(1, 1, 1, 1)
        loss([patch, latent, latent], patch)


def check_denoiser_shape(
    image_size: Sequence[int],
    autoencoder: Any,
    channels: Sequence[int],
    attention: Sequence[bool],
    num_inference_steps: int,
) -> None:
    """Check what the denoiser is built of, that the latents fit it, and that it can be trained and drawn from.

    Args:
        image_size: sides in pixels.
        autoencoder: folder of the finished autoencoder, or an autoencoder.
        channels: of each level.
        attention: whether each level has it.
        num_inference_steps: steps of the sampler.

    Raises:
        MGCCError: lists every fault.
    """
    faults = _groups("diffusion_channels", channels, _DENOISER_GROUPS)
    if len(attention) != len(channels):
        faults.append(
            f"--diffusion_attention {list(attention)}: {len(attention)} levels, --diffusion_channels has "
            f"{len(channels)}; give as many."
        )
    vae = load_autoencoder(autoencoder) if isinstance(autoencoder, str) else autoencoder
    faults += _sides("image_size", image_size, _shrinks(vae) * 2 ** (len(channels) - 1), "diffusion_channels")
    raise_errors(faults, "denoiser")
    options = "the --diffusion_... options and --num_inference_steps"
    with _step(f"a training step of the denoiser for images of {list(image_size)} pixels", options):
        parts = copy_parser(active_parser(), classes=["any"])  # how many there are makes no difference
        for part in ("train#trainer#prepare_batch", "loss"):
            parts.get_parsed_content(part)
        new_scheduler(None, parts.get_parsed_content("pipeline#scheduler"), num_inference_steps)
        network, zero = untrained_denoiser(parts, vae, image_size), torch.zeros(1, dtype=torch.long, device="meta")
        network(_latents(vae, image_size), zero, zero)


def untrained_denoiser(parser: ConfigParser, vae: Any, image_size: Sequence[int]) -> torch.nn.Module:
    """Build the denoiser of a config on the meta device, for latents that are not there yet.

    Args:
        parser: of the config.
        vae: the autoencoder.
        image_size: sides in pixels.
    """
    return untrained("network_def", parser, vae=vae, train__latents=_latents(vae, image_size))


def _shrinks(vae: Any) -> int:
    return round(vae.config.in_channels**0.5) * 2 ** (len(vae.config.block_out_channels) - 1)


def _latents(vae: Any, image_size: Sequence[int]) -> torch.Tensor:
    return _empty(1, vae.config.latent_channels, *(side // _shrinks(vae) for side in image_size[::-1]))


def _sides(name: str, sides: Any, factor: int, why: str) -> list[str]:
    pair = isinstance(sides, list | tuple) and len(sides) == 2
    if pair and all(isinstance(side, int) and side > 0 and side % factor == 0 for side in sides):
        return []
    return [f"--{name} {sides}: give two multiples of {factor}, which {why} ask for."]


def _groups(name: str, channels: Sequence[int], groups: int) -> list[str]:
    if all(number % groups == 0 for number in channels):
        return []
    return [f"--{name} {list(channels)}: give multiples of {groups}."]
