"""The first items of every run: options, data and weights are checked before any work."""

from mgcc_monai.generation.sample import check_request
from mgcc_monai.preflight.generation import (
    check_autoencoder,
    check_classes,
    check_gate,
    check_generator,
    check_generator_data,
    check_origin,
)
from mgcc_monai.preflight.segmentation import (
    build,
    check_data,
    check_evaluation,
    check_inference,
    check_options,
    check_resume,
    check_training,
    check_weights,
    read_run,
    read_settings,
)
from mgcc_monai.preflight.shapes import (
    check_aspect,
    check_autoencoder_shape,
    check_denoiser_shape,
    check_segmenter_shape,
    check_segmenter_step,
)

__all__ = [
    "build",
    "check_aspect",
    "check_autoencoder",
    "check_autoencoder_shape",
    "check_classes",
    "check_data",
    "check_denoiser_shape",
    "check_evaluation",
    "check_gate",
    "check_generator",
    "check_generator_data",
    "check_inference",
    "check_options",
    "check_origin",
    "check_request",
    "check_resume",
    "check_segmenter_shape",
    "check_segmenter_step",
    "check_training",
    "check_weights",
    "read_run",
    "read_settings",
]
