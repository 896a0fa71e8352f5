"""Handlers for the ignite engines of MONAI."""

from mgcc_monai.handlers.best_weights import BestWeights, install_weights
from mgcc_monai.handlers.checkpoint import ResumableCheckpoint
from mgcc_monai.handlers.clip import GradientClipping
from mgcc_monai.handlers.detail import DetailPhase
from mgcc_monai.handlers.discriminator import DiscriminatorStep
from mgcc_monai.handlers.early_stop import EarlyStop
from mgcc_monai.handlers.ema import EMA
from mgcc_monai.handlers.ending import TrainingEnd
from mgcc_monai.handlers.finite_guard import FiniteGuard
from mgcc_monai.handlers.memory import OutOfMemory, is_out_of_memory
from mgcc_monai.handlers.preemption import Preempted
from mgcc_monai.handlers.preview import ReconstructionPreview, SamplePreview
from mgcc_monai.handlers.progress import BatchProgress, TrainingProgress
from mgcc_monai.handlers.run_record import RunRecord
from mgcc_monai.handlers.seed import ProgressSeed
from mgcc_monai.handlers.training_log import TrainingLog

__all__ = [
    "BatchProgress",
    "BestWeights",
    "DetailPhase",
    "DiscriminatorStep",
    "EMA",
    "EarlyStop",
    "FiniteGuard",
    "GradientClipping",
    "OutOfMemory",
    "Preempted",
    "ProgressSeed",
    "ReconstructionPreview",
    "ResumableCheckpoint",
    "RunRecord",
    "SamplePreview",
    "TrainingEnd",
    "TrainingLog",
    "TrainingProgress",
    "install_weights",
    "is_out_of_memory",
]
