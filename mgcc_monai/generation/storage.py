"""Saving the trained parts of stage 1 as diffusers reads them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL

from mgcc_monai.distributed import is_main_process
from mgcc_monai.errors import MGCCError, one_line, plain_os_errors
from mgcc_monai.files import hash_files, write_folder
from mgcc_monai.generation.latent_axes import uncorrelate
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.handlers.ema import EMA
from mgcc_monai.weights import verify_folder, write_checksums

__all__ = ["load_autoencoder", "load_pipeline", "model_hash", "save_autoencoder", "save_pipeline", "weights_hash"]

WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_autoencoder(network: Any, ema: EMA, loader: Iterable[Any], folder: str, device: Any = "cpu") -> None:
    """Write the averaged autoencoder to ``<folder>/vae``, its latents uncorrelated and their scale in its config.

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
        vae = uncorrelate(copy.deepcopy(network.vae).eval(), loader, device)

        def write(target: Path) -> None:
            vae.save_pretrained(target, safe_serialization=True)
            write_checksums(target)

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


@plain_os_errors()
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


@plain_os_errors()
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


@plain_os_errors()
def weights_hash(*folders: str | Path) -> str:
    """Return the sha256 of the weights that lie in folders of diffusers models, in order."""
    paths = [Path(folder) / WEIGHTS for folder in folders]
    for path in paths:
        if not path.is_file():
            raise MGCCError(f"{path}: there is no such file of weights; run the stage before this one.")
    return hash_files(paths)


def model_hash(diffusion_dir: str | Path) -> str:
    """Return the hash of the weights of a denoiser's run: its autoencoder's and its denoiser's."""
    return weights_hash(*(Path(diffusion_dir) / "pipeline" / part for part in ("vae", "unet")))
