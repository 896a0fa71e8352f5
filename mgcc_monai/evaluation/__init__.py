"""Honest figures: metrics a case, intervals over groups, tables and pictures."""

from mgcc_monai.evaluation.bands import TimestepBandLoss
from mgcc_monai.evaluation.cases import CaseMetricsHandler
from mgcc_monai.evaluation.lesions import LesionTableHandler
from mgcc_monai.evaluation.metrics import case_metrics
from mgcc_monai.evaluation.pictures import OverlayHandler
from mgcc_monai.evaluation.statistics import bootstrap_mean
from mgcc_monai.evaluation.threshold import BestThresholdHandler, DiceByThreshold

__all__ = [
    "BestThresholdHandler",
    "CaseMetricsHandler",
    "DiceByThreshold",
    "LesionTableHandler",
    "OverlayHandler",
    "TimestepBandLoss",
    "bootstrap_mean",
    "case_metrics",
]
