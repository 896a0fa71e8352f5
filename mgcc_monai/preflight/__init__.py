"""The first items of every run: options, data and weights are checked before any work."""

from mgcc_monai.preflight.generation import check_autoencoder, check_generator, check_generator_data, check_origin
from mgcc_monai.preflight.leftovers import check_leftovers
from mgcc_monai.preflight.segmentation import (
    build,
    check_evaluation,
    check_inference,
    check_options,
    check_resume,
    check_training,
    check_weights,
    read_run,
    read_settings,
)
from mgcc_monai.preflight.shapes import check_autoencoder_shape, check_denoiser_shape, check_segmenter_shape

__all__ = [
    "build",
    "check_autoencoder",
    "check_autoencoder_shape",
    "check_denoiser_shape",
    "check_evaluation",
    "check_generator",
    "check_generator_data",
    "check_inference",
    "check_leftovers",
    "check_options",
    "check_origin",
    "check_resume",
    "check_segmenter_shape",
    "check_training",
    "check_weights",
    "read_run",
    "read_settings",
]
