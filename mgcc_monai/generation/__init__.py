"""From trained networks to images that may be trained on: sampling, quality and copies."""

from mgcc_monai.generation.judge import judge
from mgcc_monai.generation.manifest import kept_images
from mgcc_monai.generation.pipeline import LatentDiffusionPipeline
from mgcc_monai.generation.sample import generate
from mgcc_monai.generation.storage import (
    files_hash,
    load_autoencoder,
    load_pipeline,
    save_autoencoder,
    save_pipeline,
    weights_hash,
)

__all__ = [
    "LatentDiffusionPipeline",
    "files_hash",
    "generate",
    "judge",
    "kept_images",
    "load_autoencoder",
    "load_pipeline",
    "save_autoencoder",
    "save_pipeline",
    "weights_hash",
]
