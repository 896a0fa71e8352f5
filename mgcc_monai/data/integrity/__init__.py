"""Checks of a dataset, before anything is trained on it: ``python -m mgcc_monai check``."""

from mgcc_monai.data.integrity.checks import Check, Finding
from mgcc_monai.data.integrity.report import CHECKS, Report, check_dataset

__all__ = ["CHECKS", "Check", "Finding", "Report", "check_dataset"]
