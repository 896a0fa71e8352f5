"""Losses and schedules that MONAI lacks."""

from mgcc_monai.losses.autoencoder import AutoencoderLoss
from mgcc_monai.losses.consistency import CrossConsistencyLoss, consistency
from mgcc_monai.losses.diffusion import DiffusionLoss
from mgcc_monai.losses.ramps import consistency_ramp
from mgcc_monai.losses.supervised import SupervisedLoss

__all__ = [
    "AutoencoderLoss",
    "CrossConsistencyLoss",
    "DiffusionLoss",
    "SupervisedLoss",
    "consistency",
    "consistency_ramp",
]
