"""Saving the trained parts of stage 1 as diffusers reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from mgcc_monai.distributed import is_main_process
from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.files import sha256, write_folder
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.handlers.ema import EMA
from mgcc_monai.networks.autoencoder import encode
from mgcc_monai.security.weights import list_folder, verify_folder

__all__ = [
    "latent_statistics",
    "load_autoencoder",
    "load_pipeline",
    "save_autoencoder",
    "save_pipeline",
    "weights_hash",
]

WEIGHTS = "diffusion_pytorch_model.safetensors"


@torch.no_grad()
def latent_statistics(vae: AutoencoderKL, loader: Iterable[Any], device: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over all images, of the posterior's means.

    Args:
        vae: the autoencoder, in evaluation mode.
        loader: batches with ``image`` B1HW in [-1, 1].
        device: where to compute.

    Raises:
        MGCCError: when a channel is constant or not finite: the autoencoder has not learned.
    """
    channels = vae.config.latent_channels
    count, total, squares = 0, torch.zeros(channels).double(), torch.zeros(channels).double()
    for batch in loader:
        image = torch.as_tensor(batch["image"]).to(device)
        latents = encode(vae, image).mode().double().transpose(0, 1).flatten(1).cpu()
        count += latents.shape[1]
        total += latents.sum(1)
        squares += latents.square().sum(1)
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    if not bool((std > 1e-8).all() and torch.isfinite(std).all()):
        raise MGCCError(
            f"The latents' standard deviations are {[float(f'{value:.3g}') for value in std]}: a channel says nothing "
            "about the image; train the autoencoder longer or with fewer --autoencoder_latent_channels."
        )
    return mean.tolist(), std.tolist()


def save_autoencoder(network: Any, ema: EMA, loader: Iterable[Any], folder: str, device: Any = "cpu") -> None:
    """Write the averaged autoencoder to ``<folder>/vae``, with the scale of its latents in its config.

    Args:
        network: the :class:`mgcc_monai.networks.Autoencoder`.
        ema: its averaged weights.
        loader: batches over all images that it was trained on, whole and as they are.
        folder: the stage's folder.
        device: where to encode.
    """
    if not is_main_process():
        return
    with ema.averaged():
        vae = network.vae.eval()
        mean, std = latent_statistics(vae, loader, device)
        vae.register_to_config(latents_mean=mean, latents_std=std)

        def write(target: Path) -> None:
            vae.save_pretrained(target, safe_serialization=True)
            list_folder(target)

        write_folder(Path(folder) / "vae", write)


def save_pipeline(pipeline: Any, ema: EMA, folder: str) -> None:
    """Write the pipeline with the averaged denoiser to ``<folder>/pipeline``.

    Args:
        pipeline: a :class:`mgcc_monai.generation.LatentDiffusionPipeline` over the network in training.
        ema: its averaged weights.
        folder: the stage's folder.
    """
    if not is_main_process():
        return
    with ema.averaged():
        write_folder(
            Path(folder) / "pipeline", lambda target: pipeline.save_pretrained(target, safe_serialization=True)
        )


def load_autoencoder(folder: str | Path) -> AutoencoderKL:
    """Read the autoencoder of a finished stage from ``<folder>/vae``, frozen and in evaluation mode.

    Raises:
        MGCCError: when there is none, or it cannot be read, or is not the one that was saved, or the scale of its
            latents is missing.
    """
    path = Path(folder) / "vae"
    if not (path / "config.json").is_file():
        raise MGCCError(
            f"{path}: there is no trained autoencoder; run 'training' with configs/train_autoencoder.json first, or "
            "give the --output_dir of a finished one."
        )
    verify_folder(path)
    try:
        vae = AutoencoderKL.from_pretrained(
            str(path), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except Exception as error:
        reason = one_line(error)
        raise MGCCError(f"{path}: cannot be read as an autoencoder ({reason}); train it again.") from None
    if not vae.config.latents_mean or not vae.config.latents_std:
        raise MGCCError(f"{path}/config.json: has no latents_mean and latents_std; train it with this bundle.")
    return vae.eval().requires_grad_(False)


def load_pipeline(folder: str | Path) -> LatentDiffusionPipeline:
    """Read the pipeline of a finished stage from ``<folder>/pipeline``.

    Raises:
        MGCCError: when there is none, or it cannot be read.
    """
    path = Path(folder) / "pipeline"
    if not (path / "model_index.json").is_file():
        raise MGCCError(
            f"{path}: there is no trained denoiser; run 'training' with configs/train_diffusion.json first, or give "
            "the --output_dir of a finished one."
        )
    return LatentDiffusionPipeline.from_pretrained(str(path))


def weights_hash(*folders: str | Path) -> str:
    """Return the sha256 of the weights that lie in folders of diffusers models, in order."""
    digest = hashlib.sha256()
    for folder in folders:
        path = Path(folder) / WEIGHTS
        if not path.is_file():
            raise MGCCError(f"{path}: there is no such file of weights; run the stage before this one.")
        digest.update(sha256(path).encode())
    return digest.hexdigest()
