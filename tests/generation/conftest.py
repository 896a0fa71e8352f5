"""A pipeline of tiny untrained networks, for every test that draws images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DModel

from mgcc_monai.generation.pipeline import LatentDiffusionPipeline


def make_pipeline(classes: Sequence[str] = ("benign", "malignant"), seed: int = 0) -> LatentDiffusionPipeline:
    """A pipeline for images of 32 x 32 pixels, with weights of a seed, large enough for images that differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            in_channels=1,
            out_channels=1,
            latent_channels=4,
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            norm_num_groups=4,
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.0, 2.0, 0.5, 0.8],
        )
        unet = UNet2DModel(
            sample_size=(8, 8),
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            dropout=0.1,
            num_class_embeds=len(classes) + 1 if classes else None,
        )
        with torch.no_grad():
            for weight in (vae.decoder.conv_out.weight, unet.conv_out.weight):
                weight.mul_(2)
    return LatentDiffusionPipeline(
        vae,
        unet,
        DPMSolverMultistepScheduler(prediction_type="v_prediction"),
        classes=classes,
        class_proportions=[0.7, 0.3] if len(classes) == 2 else [],
        image_size=[32, 32],
        provenance={"dataset_hash": "d" * 64, "autoencoder": "a" * 64},
    )


@pytest.fixture(scope="session")
def new_pipeline() -> Callable[..., LatentDiffusionPipeline]:
    """``new_pipeline(classes, seed)``: a pipeline of one's own."""
    return make_pipeline


@pytest.fixture(scope="session")
def pipeline() -> LatentDiffusionPipeline:
    """One of two classes, not to be changed."""
    return make_pipeline()


@pytest.fixture(scope="session")
def saved_pipeline(pipeline: LatentDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same, as diffusers saves it."""
    folder = tmp_path_factory.mktemp("model") / "pipeline"
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
