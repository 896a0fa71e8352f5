"""Networks that MONAI lacks."""

from mgcc_monai.networks.mgcc import MGCC
from mgcc_monai.networks.perturbations import Dropout, FeatureDropout, FeatureNoise, Perturbation

__all__ = ["MGCC", "Dropout", "FeatureDropout", "FeatureNoise", "Perturbation"]
