"""Handlers for the ignite engines of MONAI."""

from mgcc_monai.handlers.checkpoint import BestWeights, ResumableCheckpoint, install_weights
from mgcc_monai.handlers.early_stop import EarlyStop
from mgcc_monai.handlers.progress import BatchProgress, TrainingProgress
from mgcc_monai.handlers.run_record import RunRecord
from mgcc_monai.handlers.seed import ProgressSeed

__all__ = [
    "BatchProgress",
    "BestWeights",
    "EarlyStop",
    "ProgressSeed",
    "ResumableCheckpoint",
    "RunRecord",
    "TrainingProgress",
    "install_weights",
]
