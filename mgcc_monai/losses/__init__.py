"""Losses and schedules that MONAI lacks."""

from mgcc_monai.losses.consistency import CrossConsistencyLoss, consistency
from mgcc_monai.losses.ramps import consistency_ramp

__all__ = ["CrossConsistencyLoss", "consistency", "consistency_ramp"]
