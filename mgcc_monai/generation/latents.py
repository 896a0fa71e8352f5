"""Latents of a dataset: encoded once, with their flips, and kept in a file that knows what it is of."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mgcc_monai.distributed import is_main_process
from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.files import write_file
from mgcc_monai.networks.autoencoder import encode
from mgcc_monai.progress import progress_bar
from mgcc_monai.seeds import torch_seed

__all__ = ["class_proportions", "class_names", "encode_latents", "fixed_noise_items", "latent_items"]

logger = logging.getLogger(__name__)


def class_names(datalist: Mapping[str, Any], lists: Sequence[str]) -> list[str]:
    """Return the classes that occur in some lists, in alphabetical order."""
    return sorted({_class(item) for name in lists for item in datalist[name]} - {""})


def _class(item: Mapping[str, Any]) -> str:
    """Return the class of an item as text, nothing where it has none."""
    return "" if item.get("class") is None else str(item["class"])


def class_proportions(items: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[float]:
    """Return the share of each class among the items that have one of them.

    Raises:
        MGCCError: when a class has no image to learn from.
    """
    counts = [sum(_class(item) == str(name) for item in items) for name in classes]
    for name, count in zip(classes, counts):
        if not count:
            known = ", ".join(sorted({_class(item) for item in items} - {""}))
            raise MGCCError(f"--classes: no image to learn from is '{name}'; the classes are {known}.")
    return [count / sum(counts) for count in counts]


@plain_os_errors()
@torch.no_grad()
def encode_latents(
    vae: Any, dataset: Sequence[Any], path: str | Path, key: Mapping[str, Any], flips: bool, device: Any = "cpu"
) -> torch.Tensor:
    """Encode images to normalised latents, or read those of an earlier run where they are of the very same.

    Args:
        vae: the autoencoder, whose config has the latents' mean and standard deviation.
        dataset: items with ``image`` 1HW in [-1, 1].
        path: the file, safetensors.
        key: all that the latents depend on: the data's hash, the lists, the sizes, the autoencoder's weights.
        flips: encode each image from left to right and mirrored; the mirrored ones come behind all others.
        device: where to encode.

    Returns:
        latents of zero mean and unit deviation, NCHW, or (2N)CHW with flips.
    """
    text = json.dumps({**key, "flips": bool(flips), "images": len(dataset), "dtype": str(vae.dtype)}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = Path(path)
    if path.is_file():
        try:
            with safe_open(str(path), framework="pt") as file:
                if (file.metadata() or {}).get("key") == digest:
                    return file.get_tensor("latents")
            logger.info("%s: is of other images or another autoencoder; encoding anew.", path)
        except SafetensorError:
            logger.info("%s: cannot be read; encoding anew.", path)
    mean, std = (torch.tensor(vae.config[name], dtype=torch.float32) for name in ("latents_mean", "latents_std"))
    mean, std = (values[:, None, None].to(device) for values in (mean, std))
    latents: list[torch.Tensor] = []
    for mirrored in (False, True)[: 2 if flips else 1]:
        for item in progress_bar(dataset, desc="latents", unit="image", disable=not is_main_process()):
            image = torch.as_tensor(item["image"])[None].to(device)
            image = image.flip(-1) if mirrored else image
            latents.append(((encode(vae, image).mode()[0].float() - mean) / std).cpu())
    found = torch.stack(latents)
    if not bool(torch.isfinite(found).all()):
        cure = "train the autoencoder again, or take bfloat16 instead of float16."
        raise MGCCError(f"The autoencoder gives latents that are not numbers, in {vae.dtype}; {cure}")
    if is_main_process():
        write_file(path, save({"latents": found}, metadata={"key": digest}))
    return found


def latent_items(
    latents: torch.Tensor, items: Sequence[Mapping[str, Any]], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Pair latents with their class numbers; an image of no class, or of another, has the null class.

    Args:
        latents: as :func:`encode_latents` returns them.
        items: the images, once each.
        classes: names of the classes; their number is the null class.
    """
    numbers = {str(name): number for number, name in enumerate(classes)}
    labels = [numbers.get(_class(item), len(classes)) for item in items]
    return [{"image": latent, "class_label": labels[index % len(labels)]} for index, latent in enumerate(latents)]


def fixed_noise_items(
    items: Sequence[Mapping[str, Any]], num_train_timesteps: int, bands: int, seed: int
) -> list[dict[str, Any]]:
    """Repeat held-out latents once a band of time steps, each with its own noise and time step that never change.

    Args:
        items: as :func:`latent_items` returns them.
        num_train_timesteps: number of time steps of the training.
        bands: number of bands of equal width; the items are spread evenly over each.
        seed: seed of the noise.
    """
    draws = []
    for band in range(bands):
        for index, item in enumerate(items):
            generator = torch.Generator().manual_seed(torch_seed(seed, band, index))
            noise = torch.randn(item["image"].shape, generator=generator)
            step = int((band + (index + 0.5) / len(items)) * num_train_timesteps / bands)
            draws.append({**item, "noise": noise, "timesteps": step})
    return draws
